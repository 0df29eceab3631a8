// Whether Chromium lets the consent page's form lead to the client, and on from there: it holds every redirect after a form
// against the page's policy. Run by: go test -tags browser ./cmd/afterlogin/internal/oauth
//
// CONSENT_URLS  authorization requests, one a line, each of which ends at a page that says "done"
// SIGN_IN_URL   signs in
// CHROMIUM      the browser's program

import assert from 'node:assert/strict';
import { launch, need, step, watch } from './browser.mjs';

const { browser, close } = await launch();
const context = await browser.newContext({ ignoreHTTPSErrors: true });
const troubles = [];
await watch(context, troubles);
const page = await context.newPage();

try {
	await page.goto(need('SIGN_IN_URL'));
	for (const url of need('CONSENT_URLS').split('\n')) {
		const back = new URL(url).searchParams.get('redirect_uri');
		await step(`consent leads to ${new URL(back).origin}, and on from there`, async () => {
			await page.goto(url);
			await page.getByRole('button', { name: 'Allow' }).click();
			await page.waitForURL((at) => at.pathname === '/done', { timeout: 10_000 });
			assert.equal(await page.locator('body').textContent(), 'done');
			assert.notEqual(new URL(page.url()).origin, new URL(back).origin);
			assert.deepEqual(troubles, []);
		});
	}
	await step('a script does not get an answer of the authorization endpoint', async () => {
		const url = need('CONSENT_URLS').split('\n')[0];
		await page.goto(new URL('/callback', url).href);
		assert.equal(await page.evaluate(async (u) => (await fetch(u, { redirect: 'manual' })).status, url), 403);
	});
} finally {
	await close();
}
