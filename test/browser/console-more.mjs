// Events, the audit log, webhooks, revocation by query and the rehearsal in Chromium, in both themes, with JavaScript and
// without, wide and narrow. Run by: go test -tags browser ./cmd/afterlogin/internal/console
//
// CONSOLE_URL   where the console is
// CONTROL_URL   /link?role=…&name=… makes a link into it, /sign-in?subject=… a session; after /receive the receiver of the
//               webhook DEAD takes events, and /tamper changes one bit of the audit log
// WEBHOOK       a webhook's id; DEAD is one with dead letters
// GUESTS        how many sessions there are whose subjects begin with guest-
// SHOTS         a directory for pictures; with ALL_SHOTS=1 they are of every screen
// CHROMIUM      the browser's program

import assert from 'node:assert/strict';
import path from 'node:path';
import { need, soonest, step } from './browser.mjs';
import { all, base, check as examine, close, control, enter, shots, sideways, text } from './console-door.mjs';

const hook = need('WEBHOOK');
const dead = need('DEAD');
const guests = Number(need('GUESTS'));

/** check runs axe on the page, and looks whether it is wider than the window, wide and narrow. */
async function check(page, where) {
	await examine(page, where);
	const size = page.viewportSize();
	for (const width of [390, size.width]) {
		await page.setViewportSize({ width, height: size.height });
		await sideways(page, where);
	}
}

/** picture takes a picture, wide and narrow if all are wanted. */
async function picture(page, name, kept) {
	if (!all && !kept) { return; }
	await page.screenshot({ path: path.join(shots, `console-${name}.png`) });
	if (all) {
		const size = page.viewportSize();
		await page.setViewportSize({ width: 390, height: 844 });
		await page.screenshot({ path: path.join(shots, `console-${name}-narrow.png`) });
		await page.setViewportSize(size);
	}
}

const screens = {
	events: '/events', 'events-paused': '/events?pause=1', 'events-filtered': '/events?type=session.*&subject=mia', audit: '/audit', 'audit-filtered': '/audit?type=api.*',
	webhooks: '/webhooks', webhook: `/webhooks/${hook}`, 'webhook-dead': `/webhooks/${dead}`, 'webhook-new': '/webhooks/new', 'webhook-change': `/webhooks/${hook}/change`,
	'webhook-secret': `/webhooks/${hook}/secret`, 'webhook-remove': `/webhooks/${hook}/remove`,
	revocations: '/revocations', 'revocation-new': '/revocations/new?q=client%3Dmobile', rehearsal: '/rehearsal',
};

/** count begins a revocation by a query, and returns when it is counted. */
async function count(page, query, undo) {
	await page.goto(`${base}/revocations/new`);
	await page.getByLabel('Query', { exact: true }).fill(query);
	await page.getByLabel('Undo window').fill(undo);
	await page.getByRole('button', { name: 'Count them' }).click();
	await page.waitForURL(/revocations\/rev_/);
	for (let i = 0; i < 100 && !(await page.locator('.state').textContent()).includes('to be confirmed'); i++) {
		await page.waitForTimeout(100);
		await page.reload();
	}
}

/** confirm types the number that was counted. */
async function confirm(page, n) {
	await page.getByRole('link', { name: /^End (it|them)…$/ }).click();
	await page.getByLabel('How many are to end?').fill(String(n));
	await page.getByRole('button', { name: /^(Freeze, then end|End them now)$/ }).click();
	await page.waitForURL(/done=job-confirmed/);
}

try {
	for (const colorScheme of ['light', 'dark']) {
		await step(`every screen with JavaScript, ${colorScheme}`, async () => {
			const { context, page, troubles } = await enter('admin', 'tom', { colorScheme });
			for (const [name, where] of Object.entries(screens)) {
				const answer = await page.goto(base + where);
				assert.equal(answer.status(), 200, where);
				await page.locator('h1').waitFor();
				await check(page, `${where}, ${colorScheme}`);
				await picture(page, `${name}-${colorScheme}`, name === 'audit' && colorScheme === 'light');
			}
			assert.deepEqual(troubles, []);
			await context.close();
		});
		await step(`every screen without JavaScript, ${colorScheme}`, async () => {
			const { context, page } = await enter('admin', 'tom', { colorScheme, javaScriptEnabled: false });
			// axe is a script itself: it examines the same pages where none of ours has been fetched.
			const bare = await enter('admin', 'tom', { colorScheme });
			await bare.context.route('**/*.js', (route) => route.fulfill({ contentType: 'text/javascript', body: '' }));
			for (const [name, where] of Object.entries(screens)) {
				const answer = await page.goto(base + where);
				assert.equal(answer.status(), 200, where);
				assert.ok((await page.locator('h1').textContent()).trim(), `${name} has no heading`);
				await bare.page.goto(base + where);
				await check(bare.page, `${where}, ${colorScheme}, without JavaScript`);
			}
			await context.close();
			await bare.context.close();
		});
	}
	await step('a viewer sees them, and no act', async () => {
		const { context, page, troubles } = await enter('viewer', 'mia');
		for (const name of ['events', 'audit', 'webhooks', 'webhook', 'webhook-dead', 'revocations', 'rehearsal']) {
			const answer = await page.goto(base + screens[name]);
			assert.equal(answer.status(), 200, name);
			await check(page, `${name}, as a viewer`);
			const acts = await page.locator('main form[method=post] button, main .danger').allTextContents();
			assert.deepEqual(acts.filter((a) => a !== 'Check the log'), [], name);
		}
		assert.equal((await page.goto(`${base}/revocations/new`)).status(), 403);
		assert.deepEqual(troubles, []);
		await context.close();
	});
	await step('events arrive without a reload, and stop while the page is paused', async () => {
		const { context, page, troubles } = await enter('viewer', 'mia');
		await page.goto(`${base}/events?subject=zoe`);
		await page.evaluate(() => { globalThis.sameDocument = true; });
		await page.waitForTimeout(600); // until the stream is open; the page itself is complete before
		const rows = page.locator('tbody tr', { hasText: 'session.created' });
		let had = 0;
		const took = await soonest(async () => {
			had = await rows.count();
			const began = Date.now();
			await text(`${control}/sign-in?subject=zoe`);
			await page.waitForFunction((n) => document.querySelectorAll('.badge').length > n, had, { polling: 20, timeout: 10_000 });
			return Date.now() - began;
		});
		console.log(`        the event was there ${took} ms after it began`);
		await text(`${control}/sign-in?subject=ada`); // is not shown here, and not told of
		await page.waitForFunction(() => document.getElementById('announce').textContent === '1 new event', null, { timeout: 10_000 });
		assert.ok(await page.evaluate(() => globalThis.sameDocument), 'the page was loaded anew');
		await check(page, 'events, live');
		await page.getByRole('link', { name: 'Pause' }).click();
		await page.waitForURL(/pause=1/);
		await text(`${control}/sign-in?subject=zoe`);
		await page.waitForTimeout(1000);
		assert.equal(await rows.count(), had + 1);
		await page.getByRole('link', { name: 'Go on' }).click();
		await page.waitForFunction((n) => document.querySelectorAll('.badge').length === n, had + 2, { timeout: 5000 });
		assert.deepEqual(troubles, []);
		await context.close();
	});
	await step('without JavaScript events come with a reload', async () => {
		const { context, page } = await enter('viewer', 'mia', { javaScriptEnabled: false });
		await page.goto(`${base}/events?subject=max`);
		const rows = page.locator('tbody .badge');
		const had = await rows.count();
		await text(`${control}/sign-in?subject=max`);
		await page.waitForTimeout(300);
		await page.getByRole('link', { name: 'Reload' }).click();
		assert.equal(await rows.count(), had + 1);
		await context.close();
	});
	await step('many are ended by a query: the number, the progress, the undo', async () => {
		const { context, page, troubles } = await enter('admin', 'tom');
		await count(page, 'subject=guest-*', '10m');
		const n = guests.toLocaleString('en').replaceAll(',', '\u202f');
		assert.match(await page.locator('.count').textContent(), new RegExp(`${n} match`));
		await check(page, 'counted');
		await picture(page, 'revocation-ready-light');
		await page.getByRole('link', { name: 'End them…' }).click();
		await page.getByLabel('How many are to end?').fill('12');
		await page.getByRole('button', { name: 'Freeze, then end' }).click();
		const field = page.getByLabel('How many are to end?');
		assert.equal(await field.getAttribute('aria-invalid'), 'true');
		await check(page, 'a wrong number');
		await picture(page, 'revocation-confirm-light');
		await page.getByRole('link', { name: 'Go back' }).click();
		await confirm(page, guests);
		await page.evaluate(() => {
			globalThis.sameDocument = true;
			globalThis.stood = [];
			setInterval(() => {
				const v = document.querySelector('progress[value]')?.value;
				if (v !== undefined && v !== globalThis.stood.at(-1)) { globalThis.stood.push(v); }
			}, 20);
		});
		await page.locator('progress[value]').waitFor();
		await check(page, 'freezing');
		await picture(page, 'revocation-freezing-light');
		await page.getByText(`${n} are frozen`).waitFor({ timeout: 20_000 });
		const stood = await page.evaluate(() => globalThis.stood);
		assert.ok(stood.length >= 2 && stood.every((v, i) => i === 0 || v > stood[i - 1]), `the progress bar stood at ${stood}`);
		console.log(`        the progress bar stood at ${stood}`);
		await page.locator('#undo-left').waitFor();
		const left = await page.locator('#undo-left').textContent();
		await page.waitForFunction((was) => document.getElementById('undo-left')?.textContent !== was, left, { timeout: 5000 });
		assert.equal(await page.locator('#announce').textContent(), 'This revocation is frozen, can be undone.');
		assert.ok(await page.evaluate(() => globalThis.sameDocument), 'the page was loaded anew');
		await check(page, 'frozen');
		await picture(page, 'revocation-frozen-light', true);
		await page.locator('#job-undo').focus();
		await page.waitForTimeout(2500); // the live part is made anew each second
		assert.equal(await page.evaluate(() => document.activeElement.id), 'job-undo', 'the focus was lost');
		await page.keyboard.press('Enter');
		await page.getByText(`${n} were thawed`).waitFor({ timeout: 30_000 });
		await check(page, 'undone');
		await page.goto(`${base}/revocations`);
		await check(page, 'the list of revocations');
		await picture(page, 'revocations-light');
		assert.deepEqual(troubles, []);
		await context.close();
	});
	await step('without JavaScript: a few are ended by a query', async () => {
		const { context, page } = await enter('admin', 'tom', { javaScriptEnabled: false, colorScheme: 'dark' });
		await page.goto(`${base}/sessions?subject=kim`);
		await page.getByRole('link', { name: 'End what was found…' }).click();
		assert.match(await page.getByLabel('Query', { exact: true }).inputValue(), /kim/);
		await count(page, 'subject=kim', '0');
		const n = Number((await page.locator('.count').textContent()).match(/(\d+) match/)[1]);
		await confirm(page, n);
		for (let i = 0; i < 100 && !(await page.locator('.state').textContent()).includes('done'); i++) {
			await page.waitForTimeout(100);
			await page.reload();
		}
		assert.match(await page.locator('.count').textContent(), new RegExp(`${n} w(as|ere) ended`));
		await page.goto(`${base}/sessions?subject=kim`);
		assert.match(await page.locator('.found').textContent(), /0 found/);
		await context.close();
	});
	await step('a webhook is added, tested, changed and removed', async () => {
		const { context, page, troubles } = await enter('admin', 'tom');
		await page.goto(`${base}/webhooks/new`);
		await page.getByLabel('Address').fill('http://example.com/');
		await page.getByRole('button', { name: 'Add the webhook' }).click();
		assert.equal(await page.getByLabel('Address').getAttribute('aria-invalid'), 'true');
		assert.equal(await page.getByLabel('Address').inputValue(), 'http://example.com/');
		await check(page, 'a webhook with a mistake');
		await picture(page, 'webhook-mistake-light');
		await page.getByLabel('Address').fill(`${control}/nowhere`);
		await page.getByLabel('Events').fill('session.revoked');
		await page.getByRole('button', { name: 'Add the webhook' }).click();
		assert.match(await page.locator('#secret').textContent(), /^whsec_/);
		await check(page, 'the secret of a webhook');
		await page.getByRole('link', { name: 'To the webhook' }).click();
		assert.doesNotMatch(await page.content(), /whsec_/);
		await page.getByRole('button', { name: 'Send a test event' }).click();
		assert.match(await page.getByRole('alert').textContent(), /it answered 404 after \d+ ms/);
		await check(page, 'a test that failed');
		await picture(page, 'webhook-test-light');
		await page.getByRole('link', { name: 'To the webhook' }).click();
		await page.getByRole('link', { name: 'Change…' }).click();
		await page.getByLabel('Description').fill('for a while');
		await page.getByRole('button', { name: 'Change the webhook' }).click();
		await page.waitForURL(/done=webhook-changed/);
		assert.match(await page.locator('#live').textContent(), /for a while/);
		await page.getByRole('button', { name: 'Disable' }).click();
		assert.equal(await page.locator('.state .badge').textContent(), 'disabled');
		await page.getByRole('link', { name: 'Remove…' }).click();
		await page.getByRole('button', { name: 'Remove the webhook' }).click();
		assert.match(await page.getByRole('status').first().textContent(), /removed/);
		await page.goto(`${base}/webhooks/${dead}`);
		await text(`${control}/receive`);
		await page.getByRole('button', { name: 'Disable' }).click();
		await page.getByRole('button', { name: 'Enable' }).click(); // tries at once, and not only when the next try is due
		await page.getByRole('button', { name: 'Send all of them again' }).click();
		await page.waitForURL(/done=redelivered/);
		await page.waitForFunction(() => /^(catching up|delivering)$/.test(document.querySelector('.state .badge')?.textContent), null, { timeout: 20_000 });
		await check(page, 'dead letters that are sent again');
		assert.deepEqual(troubles, []);
		await context.close();
	});
	await step('the audit log is exported, and checked before and after somebody has changed it', async () => {
		const { context, page, troubles } = await enter('viewer', 'mia');
		await page.goto(`${base}/audit?type=api.*`);
		const [file] = await Promise.all([page.waitForEvent('download'), page.getByRole('link', { name: 'Export what is shown' }).click()]);
		assert.match(file.suggestedFilename(), /^audit-\d{8}-\d{6}\.jsonl$/);
		await page.getByRole('button', { name: 'Check the log' }).click();
		assert.match(await page.getByRole('status').first().textContent(), /In order/);
		await check(page, 'a check that is good');
		await picture(page, 'audit-report-light');
		await text(`${control}/tamper`);
		await page.getByRole('link', { name: 'To the audit log' }).click();
		await page.getByRole('button', { name: 'Check the log' }).click();
		assert.match(await page.getByRole('alert').textContent(), /Not in order/);
		await check(page, 'a check that is not');
		await picture(page, 'audit-damaged-light');
		assert.deepEqual(troubles, []);
		await context.close();
	});
} finally {
	await close();
}
