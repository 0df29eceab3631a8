// Signing in to an application that knows nothing of it, behind a real proxy: with a name and a password, and with an
// OpenID provider that ends the session later. Run by: go test -tags browser ./cmd/afterlogin
//
// APP_URL   the application, through the proxy; /pay there needs a sign-in that is at most MAX_AGE_MS old
// ISSUER    the provider, which the sign-in page calls Example, and, where who signs out here is sent there, too, Corp
// PASSWORD  of the user mia
// SHOTS     a directory for pictures
// CHROMIUM  the browser's program

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { cookieOf, launch, need, sleep, step, watch } from './browser.mjs';

const app = need('APP_URL');
const issuer = need('ISSUER');
const password = need('PASSWORD');
const maxAge = Number(need('MAX_AGE_MS'));
const shots = need('SHOTS');
const name = '__Host-Http-session_id';
const at = (p) => new URL(p, app).href;
const axe = await readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

const { browser, close } = await launch();
const troubles = [];

/** person returns a page of a browser of somebody's own. */
async function person(options = {}) {
	const context = await browser.newContext({ viewport: { width: 1000, height: 760 }, ...options });
	await watch(context, troubles);
	return { context, page: await context.newPage() };
}

/** accessible fails on what axe finds on the page, and takes a picture, in both colour schemes. */
async function accessible(page, what) {
	await page.waitForLoadState(); // with its style
	for (const colorScheme of ['dark', 'light']) {
		await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
		const found = await page.evaluate(`${axe}; axe.run({ runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa', 'best-practice'] })`);
		const wrong = found.violations.map((v) => `${v.id}: ${v.help}: ${v.nodes.map((n) => n.html).slice(0, 3).join(' ')}`);
		assert.deepEqual(wrong, [], `${page.url()} in ${colorScheme} colours`);
		await page.screenshot({ path: path.join(shots, `${what}-${colorScheme}.png`), fullPage: true });
	}
}

/** seen is what the application says of a request that has reached it. */
async function seen(page) {
	return JSON.parse(await page.locator('#request').textContent());
}

/** signedIn checks where a sign-in has led to, and what the browser keeps. */
async function signedIn(context, page, target, subject) {
	await page.waitForURL(at(target), { timeout: 10_000 });
	const request = await seen(page);
	assert.equal(request.subject, subject);
	assert.equal(request.target, target);
	assert.doesNotMatch(request.cookies, /__Host-Http-/, 'the application sees a cookie of ours');
	const cookie = await cookieOf(context, name);
	assert.ok(cookie, 'there is no session cookie');
	assert.equal(cookie.secure, true);
	assert.equal(cookie.httpOnly, true);
	assert.equal(cookie.sameSite, 'Lax');
	assert.equal(cookie.path, '/');
	const left = (await context.cookies(app)).map((c) => c.name).filter((n) => n.includes('oidc'));
	assert.deepEqual(left, [], 'a cookie of the sign-in stays');
	return cookie;
}

async function typePassword(page, text) {
	await page.getByLabel('Name').fill('mia');
	await page.getByLabel('Password').fill(text);
	await page.getByRole('button', { name: 'Sign in', exact: true }).click();
}

/** atProvider signs in there, if it asks. */
async function atProvider(page, account) {
	await page.waitForURL((u) => u.origin === issuer, { timeout: 10_000 });
	await page.getByLabel('Account').fill(account);
	await page.getByRole('button', { name: 'Sign in there' }).click();
}

async function asksToSignIn(page, target) {
	const u = new URL(page.url());
	assert.equal(u.pathname, '/.afterlogin/login');
	assert.equal(u.searchParams.get('return_to'), target);
	await page.getByRole('button', { name: 'Sign in', exact: true }).waitFor();
}

try {
	{
		const { context, page } = await person();
		let first;
		await step('a deep link asks to sign in, on a page that everybody can use', async () => {
			await page.goto(at('/orders?page=2'));
			await asksToSignIn(page, '/orders?page=2');
			assert.equal(await cookieOf(context, name), undefined);
			assert.equal(await page.locator('script').count(), 0);
			await accessible(page, 'sign-in');
			assert.equal(await page.evaluate(() => document.activeElement?.id), 'name');
		});
		await step('a wrong password is said to be one', async () => {
			await typePassword(page, 'not the password at all');
			await page.getByRole('alert').waitFor();
			assert.equal(await cookieOf(context, name), undefined);
			await accessible(page, 'wrong-password');
		});
		await step('the right one leads to where the link did', async () => {
			await typePassword(page, password);
			first = await signedIn(context, page, '/orders?page=2', 'mia');
			assert.equal(first.expires, -1);
		});
		await step('other pages of the application know who it is', async () => {
			await page.goto(at('/basket'));
			const request = await seen(page);
			assert.equal(request.subject, 'mia');
			assert.equal(request.kind, 'session');
		});
		await step('what needs a recent sign-in asks for the password once more', async () => {
			await sleep(maxAge + 1000);
			await page.goto(at('/pay?order=7'));
			assert.equal(new URL(page.url()).pathname, '/.afterlogin/login');
			await page.getByText('You are signed in as mia').waitFor();
			await accessible(page, 'confirm');
			await page.getByLabel('Password').fill(password);
			await page.getByRole('button', { name: 'Confirm' }).click();
			const second = await signedIn(context, page, '/pay?order=7', 'mia');
			assert.notEqual(second.value, first.value, 'the token stays the same');
		});
		await step('signing out ends it, also for who kept the cookie', async () => {
			const kept = await cookieOf(context, name);
			await page.goto(at('/.afterlogin/logout'));
			await accessible(page, 'sign-out');
			await page.getByRole('button', { name: 'Sign out', exact: true }).click();
			await page.waitForLoadState();
			assert.equal(await cookieOf(context, name), undefined);
			await page.goto(at('/basket'));
			await asksToSignIn(page, '/basket');
			await context.addCookies([kept]);
			await page.goto(at('/basket'));
			await asksToSignIn(page, '/basket');
		});
		await context.close();
	}

	await step('all of it works without JavaScript, and a session can outlive the window', async () => {
		const { context, page } = await person({ javaScriptEnabled: false });
		await page.goto(at('/orders?page=2'));
		await page.getByLabel('Stay signed in').check();
		await typePassword(page, password);
		const cookie = await signedIn(context, page, '/orders?page=2', 'mia');
		assert.ok(cookie.expires > Date.now() / 1000 + 86400);
		await page.goto(at('/.afterlogin/logout'));
		await page.getByRole('button', { name: 'Sign out', exact: true }).click();
		await page.goto(at('/orders?page=2'));
		await page.getByLabel('Stay signed in').check();
		await page.getByRole('button', { name: /Example/ }).click();
		await atProvider(page, 'eve');
		const theirs = await signedIn(context, page, '/orders?page=2', 'example:eve');
		assert.ok(theirs.expires > Date.now() / 1000 + 86400);
		await context.close();
	});

	const { context, page } = await person();
	const other = await person();
	await step('a deep link leads through the provider and back', async () => {
		await page.goto(at('/orders?page=3'));
		await page.getByRole('button', { name: /Example/ }).click();
		await atProvider(page, 'tom');
		await signedIn(context, page, '/orders?page=3', 'example:tom');
		await page.goto(at('/basket'));
		assert.equal((await seen(page)).subject, 'example:tom');
	});
	await step('somebody else signs in there, too', async () => {
		await other.page.goto(at('/basket'));
		await other.page.getByRole('button', { name: /Example/ }).click();
		await atProvider(other.page, 'ann');
		await signedIn(other.context, other.page, '/basket', 'example:ann');
	});
	await step('what needs a recent sign-in asks the provider once more', async () => {
		await sleep(maxAge + 1000);
		await page.goto(at('/pay?order=8'));
		await page.getByText('You are signed in as example:tom').waitFor();
		await accessible(page, 'confirm-provider');
		await page.getByRole('link', { name: /Example/ }).click();
		await atProvider(page, 'tom'); // signed in there, but too long ago
		await signedIn(context, page, '/pay?order=8', 'example:tom');
	});
	await step('the end of the session at the provider is the end of it here', async () => {
		const there = await context.newPage();
		await there.goto(new URL('/session/end', issuer).href);
		await there.getByRole('button', { name: /sign me out/i }).click();
		await there.getByText('Signed out.').waitFor();
		await there.close();
		await page.goto(at('/orders?page=4'));
		await asksToSignIn(page, '/orders?page=4');
		await other.page.goto(at('/orders?page=4'));
		assert.equal((await seen(other.page)).subject, 'example:ann');
	});
	await step('a link from elsewhere signs nobody in without a word', async () => {
		await page.goto(new URL('/session/end', issuer).href);
		await page.evaluate((to) => { location.href = to; }, at('/.afterlogin/oidc/example/start?return_to=/basket'));
		await page.getByRole('heading', { name: 'Sign in with Example?' }).waitFor();
		await accessible(page, 'from-elsewhere');
		await page.getByRole('link', { name: 'Continue with Example' }).click();
		await atProvider(page, 'tom');
		await signedIn(context, page, '/basket', 'example:tom');
	});
	await step('an answer that is none is refused, on a page that leads on', async () => {
		await page.goto(at(`/.afterlogin/oidc/example/callback?code=x&state=${'a'.repeat(43)}`));
		await page.getByRole('heading', { name: 'This sign-in cannot be finished' }).waitFor();
		await accessible(page, 'no-attempt');
	});
	await step('who signs out here can sign out at the provider, too', async () => {
		const { context: c, page: p } = await person();
		await p.goto(at('/basket'));
		await p.getByRole('button', { name: /Corp/ }).click();
		await atProvider(p, 'tom');
		await signedIn(c, p, '/basket', 'corp:tom');
		await p.goto(at('/.afterlogin/logout'));
		await p.getByRole('button', { name: 'Sign out', exact: true }).click();
		await p.waitForURL((u) => u.origin === issuer);
		assert.equal(await cookieOf(c, name), undefined);
		await p.getByRole('button', { name: /sign me out/i }).click();
		await p.waitForURL(at('/.afterlogin/login'));
		await p.goto(at('/basket'));
		await p.getByRole('button', { name: /Corp/ }).click();
		await p.getByLabel('Account').waitFor(); // signed out there, too
		await c.close();
	});
	await step('two tabs sign in at once', async () => {
		const { context: c, page: one } = await person();
		const two = await c.newPage();
		for (const [p, target] of [[one, '/one'], [two, '/two']]) {
			await p.goto(at(target));
			await p.getByRole('button', { name: /Example/ }).click();
			await p.waitForURL((u) => u.origin === issuer);
		}
		await atProvider(two, 'tom');
		await signedInTab(c, two, '/two');
		await atProvider(one, 'tom');
		await signedInTab(c, one, '/one');
		await c.close();
	});
	assert.deepEqual(troubles, []);
} finally {
	await close();
}

async function signedInTab(context, page, target) {
	await page.waitForURL(at(target), { timeout: 10_000 });
	assert.equal((await seen(page)).subject, 'example:tom');
}
