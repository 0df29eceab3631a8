// The story of the demo in a real Chromium: fill the cart, sign in, be robbed, see the thief thrown out, sign in again.
// Run by: go test -tags browser ./cmd/afterlogin
//
// SHOP_URL    the running demo
// RENEWAL_MS  its times
// GRACE_MS
// CHROMIUM    the browser's program
// SHOTS       where to put screenshots; default: a temporary directory

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { mkdtemp, readFile } from 'node:fs/promises';
import http from 'node:http';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { cookieOf, launch, need, raw, sleep, step, watch } from './browser.mjs';

const base = need('SHOP_URL');
const renewal = Number(need('RENEWAL_MS'));
const grace = Number(need('GRACE_MS'));
const shots = process.env.SHOTS || await mkdtemp(path.join(os.tmpdir(), 'afterlogin-shots-'));
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const name = 'session_id';
const url = (p) => new URL(p, base).href;

const { browser, close } = await launch();
const troubles = [];
const context = await browser.newContext({ viewport: { width: 1200, height: 800 } });
await watch(context, troubles);
const page = await context.newPage();

const cookie = () => cookieOf(context, name);
const shot = (what, p = page) => p.screenshot({ path: path.join(shots, `${what}.png`), fullPage: true });
const lines = (p = page) => p.locator('[data-line]').count();
const session = (p = page) => p.locator('[data-session]').textContent();

/** thief opens the cart with the cookie, as another program from another address. */
const thief = (value) => {
	const target = new URL('/cart', base);
	const from = { headers: { Cookie: `${name}=${value}`, 'User-Agent': 'thief/1.0' } };
	if (os.platform() === 'linux') { // all of 127.0.0.0/8 is this machine, and another /24 is another client
		target.hostname = '127.0.0.1';
		from.localAddress = '127.0.1.9';
	}
	return raw(target, from);
};

async function signIn(p, user = 'mia', password = 'demo') {
	await p.getByLabel('Name').fill(user);
	await p.getByLabel('Password').fill(password);
	await p.getByRole('main').getByRole('button', { name: 'Sign in' }).click();
}

/** accessible fails on what axe finds on the page, in both colour schemes. */
async function accessible(p = page) {
	await p.waitForLoadState(); // with its style
	for (const colorScheme of ['dark', 'light']) {
		await p.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
		const found = await p.evaluate(`${axe}; axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa', 'best-practice'] })`);
		const wrong = found.violations.map((v) => `${v.id}: ${v.help}: ${v.nodes.map((n) => n.html).slice(0, 3).join(' ')}`);
		assert.deepEqual(wrong, [], `${p.url()} in ${colorScheme} colours`);
	}
}

try {
	let anonymous;
	let first;

	await step('the shop opens without a cookie, without a script, and can be used without seeing it', async () => {
		const answer = await page.goto(base);
		assert.equal(answer.status(), 200);
		assert.equal(await cookie(), undefined);
		assert.equal(await page.locator('script').count(), 0);
		assert.equal(await page.getByRole('button', { name: /Add to cart/ }).count(), 9);
		await page.waitForFunction(() => [...document.images].every((i) => i.complete && i.naturalWidth > 0));
		await accessible();
		await shot('1-shop');
	});

	await step('the cart works before anybody signs in', async () => {
		await page.getByRole('button', { name: /Add to cart.*teapot/i }).click();
		await page.goto(url('/products/sencha'));
		await accessible();
		await page.getByLabel('Quantity').fill('3');
		await page.getByRole('button', { name: 'Add to cart' }).click();
		assert.equal(await lines(), 2);
		assert.equal(await page.getByLabel('Quantity of Sencha').inputValue(), '3');
		await page.getByLabel('Quantity of Sencha').fill('2');
		await page.locator('[data-line=sencha]').getByRole('button', { name: 'Change' }).click();
		assert.equal(await page.locator('[data-total]').textContent(), '€ 77.00');
		await accessible();
		await shot('2-cart');
	});

	await step('the cookie is as Chromium should see it, and no script can', async () => {
		anonymous = await cookie();
		assert.deepEqual(
			{ httpOnly: anonymous.httpOnly, sameSite: anonymous.sameSite, path: anonymous.path, domain: anonymous.domain, expires: anonymous.expires, length: anonymous.value.length },
			{ httpOnly: true, sameSite: 'Lax', path: '/', domain: 'localhost', expires: -1, length: 88 },
		);
		assert.equal(await page.evaluate(() => document.cookie), '');
	});

	await step('a wrong password is refused with a reason', async () => {
		await page.getByRole('link', { name: 'Go to checkout' }).click();
		await signIn(page, 'mia', 'guess');
		assert.match(await page.getByRole('alert').textContent(), /wrong/);
		await accessible();
		await shot('3-wrong-password');
	});

	await step('signing in keeps the cart, changes the cookie and leads on to where she wanted to go', async () => {
		await signIn(page);
		assert.equal(page.url(), url('/checkout'));
		await accessible();
		await page.goto(url('/cart'));
		assert.equal(await lines(), 2);
		assert.equal(await page.locator('[data-name]').textContent(), 'Mia');
		first = await cookie();
		assert.notEqual(first.value, anonymous.value);
		await shot('4-signed-in');
	});

	await step('the cookie from before the sign-in is refused', async () => {
		const answer = await raw(url('/cart'), { headers: { Cookie: `${name}=${anonymous.value}` } });
		assert.deepEqual([answer.status, answer.reason], [401, 'superseded']);
		assert.equal(answer.headers['set-cookie'], undefined);
	});

	await step('a form without the CSRF token is refused, and so is one from another site', async () => {
		const headers = { Cookie: `${name}=${first.value}`, 'Content-Type': 'application/x-www-form-urlencoded' };
		assert.equal((await raw(url('/sign-out'), { method: 'POST', headers, body: '' })).status, 403);
		const token = await page.locator('[name=csrf_token]').first().inputValue();
		const answer = await raw(url('/sign-out'), {
			method: 'POST', body: `csrf_token=${token}`, headers: { ...headers, Origin: 'https://elsewhere.example', 'Sec-Fetch-Site': 'cross-site' },
		});
		assert.equal(answer.status, 403);
	});

	await step('20 tabs opened at once, when the token is due, all stay signed in', async () => {
		const before = await session();
		await sleep(renewal);
		const tabs = await Promise.all(Array.from({ length: 20 }, () => context.newPage()));
		const answers = await Promise.all(tabs.map((tab) => tab.goto(url('/cart'))));
		for (const [i, answer] of answers.entries()) {
			assert.equal(answer.status(), 200);
			assert.equal(await session(tabs[i]), before);
			assert.equal(await lines(tabs[i]), 2);
		}
		await Promise.all(tabs.map((tab) => tab.close()));
		assert.notEqual((await cookie()).value, first.value);
	});

	let copy;
	await step('a thief copies the cookie; while she does nothing, the copy works', async () => {
		await sleep(renewal);
		await page.goto(base); // renewed just now, so that it is not the thief who comes first
		copy = (await cookie()).value;
		assert.equal((await thief(copy)).status, 200);
	});

	await step('her next page renews the cookie; the copy is served within the grace and gets no new one', async () => {
		const before = await session();
		await sleep(renewal);
		await page.goto(url('/cart'));
		assert.notEqual((await cookie()).value, copy);
		assert.equal(await session(), before);
		const answer = await thief(copy);
		assert.equal(answer.status, 200);
		assert.equal(answer.headers['set-cookie'], undefined);
		await page.goto(base); // the new one is used
	});

	await step('after the grace the copy is refused, and ends the session', async () => {
		await sleep(grace + 500);
		const answer = await thief(copy);
		assert.deepEqual([answer.status, answer.reason], [401, 'reused']);
		assert.equal(answer.headers['set-cookie'], undefined);
	});

	await step('she is told why, her cookie is not touched, and her cart is there when she signs in again', async () => {
		const held = (await cookie()).value;
		const answer = await page.goto(url('/cart'));
		assert.equal(answer.status(), 401);
		const alert = await page.getByRole('alert').textContent();
		assert.match(alert, /out-of-date copy of it was used/);
		assert.match(alert, /Your cart is safe\. Sign in again\./);
		assert.equal((await cookie()).value, held);
		await accessible();
		await shot('5-thrown-out');
		await page.goto(base); // going on shopping must not lose the cart
		await page.getByRole('button', { name: /Add to cart.*honey/i }).click();
		assert.match(page.url(), /\/sign-in/);
		assert.equal((await cookie()).value, held);
		await page.goto(url('/cart'));
		await page.getByRole('link', { name: 'Sign in again' }).click();
		await shot('6-sign-in-again');
		await signIn(page);
		assert.equal(page.url(), url('/cart'));
		assert.equal(await lines(), 2);
		assert.notEqual((await cookie()).value, held);
	});

	await step('the list of devices shows this one first, and why the stolen one ended', async () => {
		await page.goto(url('/account/sessions'));
		assert.match(await page.locator('[data-device]').first().textContent(), /Chrome on .*This device/s);
		assert.match(await page.locator('[data-ended]').first().textContent(), /an out-of-date copy of this sign-in was used/);
		await accessible();
		await shot('7-devices');
	});

	await step('an app on this machine asks for her cart, on a page of its own; it stands among her devices, and she signs it out', async () => {
		let arrived;
		const answer = new Promise((resolve) => { arrived = resolve; });
		const door = http.createServer((request, response) => {
			const { pathname, searchParams } = new URL(request.url, 'http://127.0.0.1');
			response.setHeader('Content-Type', 'text/html');
			response.end('<!doctype html><html lang="en"><link rel="icon" href="data:,"><title>Done</title><p>You can close this window.');
			if (pathname === '/callback') {
				arrived(searchParams);
			}
		});
		await new Promise((resolve) => { door.listen(0, '127.0.0.1', resolve); });
		try {
			const redirect = `http://127.0.0.1:${door.address().port}/callback`;
			const verifier = crypto.randomBytes(32).toString('base64url');
			const state = crypto.randomBytes(16).toString('base64url');
			await page.goto(url('/oauth/authorize?' + new URLSearchParams({
				response_type: 'code', client_id: 'pocket-shop', redirect_uri: redirect, state, scope: 'cart offline_access',
				code_challenge: crypto.createHash('sha256').update(verifier).digest('base64url'), code_challenge_method: 'S256',
			})));
			assert.match(await page.locator('h1').textContent(), /Pocket Shop asks/);
			await accessible();
			await shot('8-consent');
			await page.getByRole('button', { name: 'Allow' }).click();
			await page.waitForURL(/\/callback\?/);
			const got = await answer;
			assert.equal(got.get('state'), state);
			assert.equal(got.get('iss'), new URL(base).origin);
			const token = (form) => fetch(url('/oauth/token'), { method: 'POST', body: new URLSearchParams({ client_id: 'pocket-shop', ...form }) });
			const granted = await token({ grant_type: 'authorization_code', code: got.get('code'), redirect_uri: redirect, code_verifier: verifier });
			assert.equal(granted.status, 200);
			const { access_token: access, refresh_token: refresh } = await granted.json();
			const cart = () => fetch(url('/api/cart'), { headers: { Authorization: `Bearer ${access}` } });
			assert.equal((await (await cart()).json()).items.length, 2);
			await page.goto(url('/account/sessions'));
			assert.match(await page.locator('[data-app]').textContent(), /Pocket Shop \(app\)/);
			await accessible();
			await shot('9-app');
			await page.getByRole('button', { name: 'Sign out Pocket Shop (app)' }).click();
			assert.equal(await page.locator('[data-app]').count(), 0);
			assert.equal((await cart()).status, 401);
			const refused = await token({ grant_type: 'refresh_token', refresh_token: refresh });
			assert.deepEqual([refused.status, (await refused.json()).error], [400, 'invalid_grant']);
		} finally {
			door.close();
			door.closeAllConnections();
		}
	});

	await step('signing out everywhere else ends the phone, and not this device', async () => {
		const phone = await browser.newContext({
			viewport: { width: 390, height: 844 },
			userAgent: 'Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/145.0.0.0 Mobile Safari/537.36',
		});
		await watch(phone, troubles);
		const far = await phone.newPage();
		await far.goto(url('/sign-in?return_to=/account/sessions'));
		await far.getByLabel('Keep me signed in').check();
		await signIn(far);
		assert.ok((await cookieOf(phone, name)).expires > Date.now() / 1000 + 29 * 86400);
		assert.equal(await far.locator('[data-device]').count(), 2);
		assert.ok(await far.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth), 'the page is wider than the phone');
		await shot('10-phone', far);
		await page.reload();
		await page.getByRole('button', { name: 'Sign out everywhere else' }).click();
		assert.equal(await page.locator('[data-device]').count(), 1);
		assert.equal((await far.goto(url('/cart'))).status(), 401);
		assert.match(await far.getByRole('alert').textContent(), /signed out on all devices/);
		await shot('11-phone-out', far);
		await phone.close();
	});

	await step('she orders', async () => {
		await page.goto(url('/checkout'));
		await page.getByRole('button', { name: 'Place the order' }).click();
		assert.equal(await page.locator('[data-order]').count(), 1);
		assert.equal(await page.locator('[data-cart-count]').count(), 0);
		await accessible();
		await shot('12-orders');
		await page.getByRole('button', { name: 'A link to it for elsewhere' }).click();
		await accessible();
		await shot('12-receipt-link');
		const link = await page.locator('[data-link]').textContent();
		assert.deepEqual([(await fetch(link)).status, (await fetch(link)).status], [200, 410]);
		await page.getByRole('link', { name: 'Back to your orders' }).click();
	});

	await step('she signs out; the cookie is gone, and the back button shows nothing of hers', async () => {
		const last = (await cookie()).value;
		await page.getByRole('button', { name: 'Sign out', exact: true }).click();
		assert.equal(await cookie(), undefined);
		await shot('13-signed-out');
		await page.goBack();
		await page.waitForURL(/\/sign-in\?return_to=/);
		const answer = await raw(url('/cart'), { headers: { Cookie: `${name}=${last}` } });
		assert.deepEqual([answer.status, answer.reason], [401, 'revoked']);
	});

	await step('what is not there says so', async () => {
		assert.equal((await page.goto(url('/products/coffee'))).status(), 404);
		await accessible();
		await shot('14-not-found');
	});

	await step('all of it works without JavaScript', async () => {
		const plain = await browser.newContext({ javaScriptEnabled: false });
		const p = await plain.newPage();
		await p.goto(base);
		await p.getByRole('button', { name: /Add to cart.*honey/i }).click();
		await p.getByRole('link', { name: 'Go to checkout' }).click();
		await signIn(p, 'tom');
		await p.getByRole('button', { name: 'Place the order' }).click();
		assert.equal(await p.locator('[data-order]').count(), 1);
		await p.getByRole('button', { name: 'Sign out', exact: true }).click();
		assert.equal(await cookieOf(plain, name), undefined);
		await plain.close();
	});

	await step('no page broke its own rules or complained', () => assert.deepEqual(troubles, []));
} catch (e) {
	await shot('failed').catch(() => {});
	throw e;
} finally {
	await close();
	console.log(`screenshots: ${shots}`);
}
