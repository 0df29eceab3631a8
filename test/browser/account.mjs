// The page of where somebody is signed in, in Chromium: without JavaScript, on a narrow screen, light and dark, by axe's
// rules for WCAG 2.2 AA, and within a page of the site's own.
// Run by: go test -tags browser ./cmd/afterlogin/internal/account
//
// APP_URL       an application with the pages below /.afterlogin; /test/who says who is signed in, and /test/frame has the
//               list in a frame
// PASSWORD      of the users mia and tom, who have other devices, an app, a key, and a device that has ended
// SHOTS         a directory for pictures
// CHROMIUM      the browser's program

import assert from 'node:assert/strict';
import path from 'node:path';
import axe from 'axe-core';
import { launch, need, step, watch } from './browser.mjs';

const app = need('APP_URL');
const list = `${app}/.afterlogin/account/sessions`;
const { browser, close } = await launch();

// signIn goes to the list, is sent to sign in, and comes back.
async function signIn(page, name) {
	await page.goto(list);
	await page.getByLabel('Name').fill(name);
	await page.getByLabel('Password').fill(need('PASSWORD'));
	await page.getByRole('button', { name: 'Sign in', exact: true }).click();
	await page.waitForURL(list);
}

const device = (page, name) => page.getByRole('listitem').filter({ has: page.getByRole('heading', { level: 3, name, exact: true }) });

try {
	for (const colorScheme of ['light', 'dark']) {
		await step(`${colorScheme}, 390 and 320 pixels wide: nothing that axe complains of, and nothing to scroll sideways`, async () => {
			const context = await browser.newContext({ ignoreHTTPSErrors: true, colorScheme, viewport: { width: 390, height: 844 } });
			const troubles = [];
			await watch(context, troubles);
			const page = await context.newPage();
			await signIn(page, 'tom');
			let n = 0;
			const look = async (what) => {
				for (const width of [320, 390]) {
					await page.setViewportSize({ width, height: 844 });
					const wide = await page.evaluate(() => document.scrollingElement.scrollWidth);
					assert.ok(wide <= width, `${what} is ${wide} pixels wide, of ${width}`);
				}
				await page.screenshot({ path: path.join(need('SHOTS'), `${colorScheme}-${n += 1}-${what}.png`), fullPage: true });
				await page.evaluate(axe.source);
				const { violations } = await page.evaluate(() => window.axe.run(document, {
					runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
				}));
				assert.deepEqual(violations.map((v) => `${what}: ${v.id}: ${v.nodes.map((x) => x.html).join(' ')}`), []);
			};
			await look('list');
			await page.getByText('Why is a device here twice?').click();
			await look('list-open');
			assert.equal(await page.locator('.product').evaluate((e) => getComputedStyle(e).letterSpacing), '3px', 'the operator’s stylesheet');
			await page.goto(`${list}?done=device`);
			await look('done');
			await page.goto(`${list}/report`);
			await look('report');
			await page.goto(`${list}/nothing/at/all`);
			await look('error');
			await page.setViewportSize({ width: 1280, height: 900 });
			await page.goto(list);
			await page.screenshot({ path: path.join(need('SHOTS'), `${colorScheme}-wide.png`), fullPage: true });
			const german = await browser.newContext({ ignoreHTTPSErrors: true, colorScheme, viewport: { width: 390, height: 844 }, locale: 'de-DE' });
			await german.addCookies(await context.cookies());
			const seite = await german.newPage();
			await seite.goto(list);
			assert.equal(await seite.locator('h1').textContent(), 'Wo Sie angemeldet sind');
			assert.ok(await seite.evaluate(() => document.scrollingElement.scrollWidth) <= 390);
			await seite.screenshot({ path: path.join(need('SHOTS'), `${colorScheme}-german.png`), fullPage: true });
			await german.close();
			assert.deepEqual(troubles, []);
			await context.close();
		});
	}

	await step('by the keyboard alone: every control is reached, and shows that it is', async () => {
		const context = await browser.newContext({ ignoreHTTPSErrors: true });
		const page = await context.newPage();
		await signIn(page, 'tom');
		const controls = await page.locator('main button, main a, main summary').count();
		const seen = new Set();
		for (let i = 0; i < controls + 2; i += 1) {
			await page.keyboard.press('Tab');
			const at = await page.evaluate(() => {
				const e = document.activeElement;
				const all = [...document.querySelectorAll('main button, main a, main summary')];
				return { n: all.indexOf(e), outline: getComputedStyle(e).outlineStyle, high: e.getBoundingClientRect().height };
			});
			if (at.n >= 0) {
				seen.add(at.n);
				assert.notEqual(at.outline, 'none', `control ${at.n} shows no focus`);
				assert.ok(at.high >= 24 || at.n === controls - 1, `control ${at.n} is ${at.high} pixels high`);
			}
		}
		assert.equal(seen.size, controls);
		await context.close();
	});

	await step('in a frame of the site’s own, and of no other', async () => {
		const context = await browser.newContext({ ignoreHTTPSErrors: true });
		const page = await context.newPage();
		await page.goto(`${app}/test/frame`);
		const frame = page.frameLocator('iframe');
		assert.match(await frame.getByRole('alert').textContent(), /You are not signed in/);
		await frame.getByRole('link', { name: 'Sign in' }).click();
		await page.waitForURL(/\/\.afterlogin\/login/);
		await signIn(page, 'tom');
		await page.goto(`${app}/test/frame`);
		assert.equal(await frame.locator('h1').textContent(), 'Where you are signed in');
		assert.equal(await frame.locator('header').count(), 0);
		await page.screenshot({ path: path.join(need('SHOTS'), 'frame.png') });
		await page.route('https://evil.localhost/**', (route) => route.fulfill({
			contentType: 'text/html', body: `<iframe src="${list}?embed=1"></iframe><iframe src="${list}"></iframe>`,
		}));
		await page.goto('https://evil.localhost/');
		const frames = page.frames().slice(1).map((f) => f.url()); // what is there is the browser's own page
		assert.deepEqual(frames, ['chrome-error://chromewebdata/', 'chrome-error://chromewebdata/']);
		await context.close();
	});

	const plain = await browser.newContext({ ignoreHTTPSErrors: true, javaScriptEnabled: false });
	const page = await plain.newPage();
	await step('without JavaScript: one device is signed out, an app and a key', async () => {
		await signIn(page, 'mia');
		assert.equal(await page.locator('.here .badge').textContent(), 'This device');
		await device(page, 'Safari on iPhone').getByRole('button', { name: /^Sign out/ }).click();
		assert.match(await page.getByRole('status').textContent(), /Signed out there/);
		await device(page, 'Pocket').getByRole('button', { name: /^End access/ }).click();
		assert.match(await page.getByRole('status').textContent(), /The app can do nothing/);
		await device(page, 'Backup at night').getByRole('button', { name: /^End this key/ }).click();
		assert.match(await page.getByRole('status').textContent(), /The key is good for nothing/);
		const gone = await page.locator('.ended').textContent();
		for (const what of ['Safari on iPhone', 'Pocket (app)', 'Backup at night (API key)', 'an older copy of this sign-in was used']) {
			assert.ok(gone.includes(what), what);
		}
	});
	const other = await browser.newContext({ ignoreHTTPSErrors: true, javaScriptEnabled: false });
	const elsewhere = await other.newPage();
	await step('without JavaScript: everything else is signed out, and hears why', async () => {
		await signIn(elsewhere, 'mia');
		await page.goto(list);
		await page.getByRole('button', { name: 'Sign out everywhere else' }).click();
		assert.match(await page.getByRole('status').textContent(), /only one left/);
		await elsewhere.goto(list);
		assert.match(await elsewhere.getByRole('status').textContent(), /You were signed out on all devices/);
	});
	await step('without JavaScript: “this wasn’t me” ends all, and leads to another password', async () => {
		await signIn(elsewhere, 'mia');
		await page.goto(list);
		await page.locator('li:not(.here)').getByRole('link', { name: /^This wasn’t me/ }).first().click();
		await page.waitForURL(/\/report\?session=ses_/);
		await page.getByRole('button', { name: 'Sign out everywhere' }).click();
		await page.waitForURL(/\/login\?return_to=/);
		assert.match(await page.getByRole('status').textContent(), /reported as not yours/);
		await elsewhere.goto(`${app}/test/who`);
		assert.equal(await elsewhere.locator('#who').textContent(), 'nobody');
		await page.getByLabel('Name').fill('mia');
		await page.getByLabel('Password').fill(need('PASSWORD'));
		await page.getByRole('button', { name: 'Sign in', exact: true }).click();
		await page.waitForURL(`${app}/.afterlogin/password`);
	});
	await step('a page of another site signs nobody out', async () => {
		await signIn(elsewhere, 'mia');
		await page.goto(list);
		await page.route('https://evil.localhost/**', (route) => route.fulfill({
			contentType: 'text/html', body: `<form method="post" action="${list}"><input name="act" value="sign_out_others"><button>Win</button></form>`,
		}));
		await page.goto('https://evil.localhost/');
		await page.getByRole('button').click();
		await page.waitForURL(list);
		await elsewhere.goto(`${app}/test/who`);
		assert.equal(await elsewhere.locator('#who').textContent(), 'mia');
	});
} finally {
	await close();
}
