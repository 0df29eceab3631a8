// Whether Chromium takes the cookie that httpauth sets over HTTPS, sends it back, and lets nobody else write it.
// Run by: go test -tags browser ./cmd/afterlogin
//
// HTTPS_URL  an application behind httpauth with its defaults, with a certificate that nobody knows
// CHROMIUM   the browser's program

import assert from 'node:assert/strict';
import { cookieOf, launch, need, step } from './browser.mjs';

const base = need('HTTPS_URL');
const name = '__Host-Http-session_id';
const { browser, close } = await launch();
const context = await browser.newContext({ ignoreHTTPSErrors: true });
const page = await context.newPage();
const who = () => page.locator('#who').textContent();

try {
	await step('signing in sets the cookie, with everything that its name demands', async () => {
		await page.goto(base);
		assert.equal(await who(), 'nobody');
		await page.getByRole('button', { name: 'Sign in' }).click();
		assert.equal(await who(), 'mia');
		const cookie = await cookieOf(context, name);
		assert.deepEqual(
			{ httpOnly: cookie.httpOnly, secure: cookie.secure, sameSite: cookie.sameSite, path: cookie.path, length: cookie.value.length },
			{ httpOnly: true, secure: true, sameSite: 'Lax', path: '/', length: 88 },
		);
	});

	await step('it is sent back', async () => {
		await page.reload();
		assert.equal(await who(), 'mia');
	});

	await step('a script can neither read nor overwrite nor remove it', async () => {
		const before = (await cookieOf(context, name)).value;
		const seen = await page.evaluate(async (cookieName) => {
			document.cookie = `${cookieName}=planted; Path=/; Secure`;
			document.cookie = `${cookieName}=; Path=/; Secure; Max-Age=0`;
			return document.cookie;
		}, name);
		assert.equal(seen, '');
		assert.equal((await cookieOf(context, name)).value, before);
		await page.reload();
		assert.equal(await who(), 'mia');
	});

	await step('a script cannot plant one where there is none', async () => {
		const fresh = await browser.newContext({ ignoreHTTPSErrors: true });
		const p = await fresh.newPage();
		await p.goto(base);
		await p.evaluate((cookieName) => { document.cookie = `${cookieName}=planted; Path=/; Secure`; }, name);
		assert.equal(await cookieOf(fresh, name), undefined);
		await fresh.close();
	});

	await step('signing out removes it', async () => {
		await page.getByRole('button', { name: 'Sign out' }).click();
		assert.equal(await who(), 'nobody');
		assert.equal(await cookieOf(context, name), undefined);
	});
} finally {
	await close();
}
