// The sign-in pages in Chromium: without JavaScript, on a narrow screen, light and dark, by axe's rules for WCAG 2.2 AA.
// Run by: go test -tags browser ./cmd/afterlogin/internal/login
//
// APP_URL       an application with the pages below /.afterlogin, and /test/who, which says who is signed in
// HOME_URL      the server's own host, with the pages at its root
// PASSWORD      of the users mia and tom; NEW_PASSWORD is what mia changes it to
// SHOTS         a directory for pictures
// CHROMIUM      the browser's program

import assert from 'node:assert/strict';
import path from 'node:path';
import axe from 'axe-core';
import { launch, need, step, watch } from './browser.mjs';

const app = need('APP_URL');
const home = need('HOME_URL');
const password = need('PASSWORD');
const { browser, close } = await launch();

const who = async (page) => page.locator('#who').textContent();

async function fill(page, name, word) {
	await page.getByLabel('Name').fill(name);
	await page.getByLabel('Password').fill(word);
	await page.getByRole('button', { name: 'Sign in', exact: true }).click();
}

try {
	const plain = await browser.newContext({ ignoreHTTPSErrors: true, javaScriptEnabled: false });
	const page = await plain.newPage();
	await step('without JavaScript: a wrong password, then the right one, and back to where it began', async () => {
		await page.goto(`${app}/.afterlogin/login?return_to=${encodeURIComponent('/test/who?a=b')}`);
		await fill(page, 'Mia', 'not the password at all');
		assert.match(await page.getByRole('alert').textContent(), /The name or the password is wrong/);
		assert.equal(await page.getByLabel('Password').inputValue(), '');
		assert.equal(await page.getByLabel('Name').inputValue(), 'Mia');
		await page.getByLabel('Stay signed in on this device').check();
		await page.getByLabel('Password').fill(password);
		await page.keyboard.press('Enter');
		await page.waitForURL(`${app}/test/who?a=b`);
		assert.equal(await who(page), 'mia');
		const cookies = await plain.cookies();
		for (const name of ['__Host-Http-session_id', '__Host-Http-afterlogin_device']) {
			const c = cookies.find((x) => x.name === name);
			assert.ok(c && c.secure && c.httpOnly && c.path === '/' && c.sameSite === 'Lax' && c.expires > 0, `${name}: ${JSON.stringify(c)}`);
		}
	});
	await step('without JavaScript: to confirm who one is', async () => {
		await page.goto(`${app}/.afterlogin/login?reason=stale_auth&max_age=0&return_to=/test/who`);
		await page.getByLabel('Password').fill(password);
		await page.getByRole('button', { name: 'Confirm' }).click();
		await page.waitForURL(`${app}/test/who`);
	});
	await step('without JavaScript: another password', async () => {
		await page.goto(`${app}/.afterlogin/password`);
		await page.getByLabel('Current password').fill(password);
		await page.getByLabel('New password', { exact: true }).fill(need('NEW_PASSWORD'));
		await page.getByLabel('New password, once more').fill(need('NEW_PASSWORD'));
		await page.getByRole('button', { name: 'Change password' }).click();
		assert.match(await page.locator('h1').textContent(), /Your password is changed/);
		await page.goto(`${app}/test/who`);
		assert.equal(await who(page), 'mia');
	});
	await step('without JavaScript: sign out', async () => {
		await page.goto(`${app}/.afterlogin/logout`);
		await page.getByRole('button', { name: 'Sign out' }).click();
		await page.waitForURL(`${app}/.afterlogin/login?reason=signed_out`);
		await page.goto(`${app}/test/who`);
		assert.equal(await who(page), 'nobody');
	});
	await step('a page of another site that posts the form signs nobody in', async () => {
		const other = await browser.newContext({ ignoreHTTPSErrors: true });
		const evil = await other.newPage();
		await evil.goto(`${app}/.afterlogin/login`);
		await evil.route('https://evil.localhost/**', (route) => route.fulfill({
			contentType: 'text/html',
			body: `<form method="post" action="${app}/.afterlogin/login"><input name="name" value="tom"><input name="password" value="${password}"><button>Go</button></form>`,
		}));
		await evil.goto('https://evil.localhost/');
		await Promise.all([evil.waitForURL(`${app}/.afterlogin/login`), evil.getByRole('button').click()]);
		await evil.goto(`${app}/test/who`);
		assert.equal(await who(evil), 'nobody');
		await other.close();
	});
	await step('who signs in at the server’s own host is signed in at the application', async () => {
		const context = await browser.newContext({ ignoreHTTPSErrors: true });
		const troubles = [];
		await watch(context, troubles);
		const tab = await context.newPage();
		await tab.goto(`${home}/login?return_to=${encodeURIComponent(`${app}/test/who?x=y`)}`);
		await fill(tab, 'tom', password);
		await tab.waitForURL(`${app}/test/who?x=y`);
		assert.equal(await who(tab), 'tom');
		assert.deepEqual(troubles, []);
		await context.close();
	});

	for (const colorScheme of ['light', 'dark']) {
		await step(`${colorScheme}, 320 pixels wide: nothing that axe complains of, and nothing to scroll sideways`, async () => {
			const context = await browser.newContext({ ignoreHTTPSErrors: true, colorScheme, viewport: { width: 320, height: 640 } });
			const troubles = [];
			await watch(context, troubles);
			const tab = await context.newPage();
			let n = 0;
			const look = async (what) => {
				await tab.screenshot({ path: path.join(need('SHOTS'), `${colorScheme}-${n += 1}-${what}.png`), fullPage: true });
				await tab.evaluate(axe.source);
				const { violations } = await tab.evaluate(() => window.axe.run(document, {
					runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
				}));
				assert.deepEqual(violations.map((v) => `${what}: ${v.id}: ${v.nodes.map((x) => x.html).join(' ')}`), []);
				const wide = await tab.evaluate(() => document.scrollingElement.scrollWidth);
				assert.ok(wide <= 320, `${what} is ${wide} pixels wide`);
			};
			await tab.goto(`${app}/.afterlogin/login?return_to=/test/who`);
			await look('sign-in');
			await fill(tab, 'tom', 'not the password at all');
			await look('wrong');
			assert.equal(await tab.evaluate(() => document.activeElement.id), 'password');
			await tab.getByLabel('Password').fill(password);
			await tab.keyboard.press('Enter');
			await tab.waitForURL(`${app}/test/who`);
			await tab.goto(`${app}/.afterlogin/login?return_to=/test/who`);
			await look('signed-in');
			await tab.goto(`${app}/.afterlogin/login?return_to=/test/who&reason=stale_auth`);
			await look('confirm');
			await tab.goto(`${app}/.afterlogin/login?return_to=/test/who&acr_values=gold`);
			await look('stronger');
			await tab.goto(`${app}/.afterlogin/password`);
			await look('password');
			await tab.getByLabel('Current password').fill(password);
			await tab.getByLabel('New password', { exact: true }).fill('short');
			await tab.getByLabel('New password, once more').fill('short');
			await tab.getByRole('button', { name: 'Change password' }).click();
			await look('password-short');
			assert.equal(await tab.evaluate(() => document.activeElement.id), 'new');
			await tab.goto(`${app}/.afterlogin/logout`);
			await look('sign-out');
			await tab.goto(`${app}/.afterlogin/nothing`);
			await look('message');
			assert.deepEqual(troubles, []);
			await context.close();
		});
	}
} finally {
	await close();
}
