// What the console's pages do beside htmx: they work without it. No inline script, so that the Content-Security-Policy can
// bar that.
'use strict';

// How many events there were, for who does not see them.
document.addEventListener('announce', (e) => {
	document.getElementById('announce').textContent = String(e.detail.data);
});

// The session is over: the page that says so is the server's.
document.addEventListener('over', () => { location.reload(); });

// The figures are old while the server cannot be reached, or cannot tell.
const stale = (is) => { document.getElementById('live')?.classList.toggle('stale', is); };
document.addEventListener('stale', () => stale(true));
document.addEventListener('htmx:sse:error', () => stale(true));
document.addEventListener('htmx:response:error', () => stale(true)); // the first answer, of which nothing is shown
document.addEventListener('htmx:sse:after:connection', () => stale(false));
document.addEventListener('htmx:sse:after:message', (e) => { if (e.detail.message.event !== 'stale') { stale(false); } });

// A button that copies what is shown once.
for (const b of document.querySelectorAll('button[data-copy]')) {
	if (!navigator.clipboard) { continue; }
	b.hidden = false;
	b.addEventListener('click', async () => {
		await navigator.clipboard.writeText(document.getElementById(b.dataset.copy).textContent);
		b.textContent = 'Copied';
		document.getElementById('announce').textContent = 'Copied';
	});
}
