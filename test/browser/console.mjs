// The console in Chromium: every screen in both themes, with JavaScript and without, wide and narrow, by axe's rules for
// WCAG 2.2 AA, and by the keyboard alone. Run by: go test -tags browser ./cmd/afterlogin/internal/console
//
// CONSOLE_URL   where the console is
// CONTROL_URL   /link?role=…&name=… makes a link into it, /theft has a token stolen
// SESSION       a session's handle, KEY an API key's, STOLEN that of a session that ended by a theft
// SHOTS         a directory for pictures; with ALL_SHOTS=1 they are of every screen
// CHROMIUM      the browser's program

import assert from 'node:assert/strict';
import path from 'node:path';
import { need, soonest, step } from './browser.mjs';
import { all, base, check, close, control, enter, shots, sideways, text } from './console-door.mjs';

const session = need('SESSION');

/** screens are all of them that a name leads to, by the name of their picture. */
const screens = {
	overview: '/', sessions: '/sessions', session: `/sessions/${session}`, 'session-stolen': `/sessions/${need('STOLEN')}`,
	'session-end': `/sessions/${session}/revoke`, subject: '/subject?name=mia', 'subject-sign-out': '/subject/sign-out?name=mia',
	keys: '/keys', 'key-new': '/keys/new', 'key-rotate': `/keys/${need('KEY')}/rotate`, clients: '/clients', client: '/clients/mobile', 'client-new': '/clients/new',
	users: '/users', user: '/users/mia', 'user-new': '/users/new', 'signing-keys': '/signing-keys', explain: '/explain',
	events: '/events', audit: '/audit', webhooks: '/webhooks', 'webhook-new': '/webhooks/new',
	configuration: '/configuration', people: '/people', link: '/people/link',
};
/** pictured are those whose pictures are kept. */
const pictured = ['overview', 'sessions', 'session', 'subject', 'explain'];

/** walk opens every screen, and examines it. */
async function walk(page, colorScheme, pictures) {
	for (const [name, where] of Object.entries(screens)) {
		const answer = await page.goto(base + where);
		assert.equal(answer.status(), 200, where);
		await page.locator('h1').waitFor();
		await check(page, `${where}, ${colorScheme}`);
		await sideways(page, `${where}, ${colorScheme}`);
		if (pictures && (all || pictured.includes(name))) {
			await page.screenshot({ path: path.join(shots, `console-${name}-${colorScheme}.png`) });
		}
		await page.setViewportSize({ width: 390, height: 844 });
		await sideways(page, `${where}, ${colorScheme}, narrow`);
		if (pictures && (all || name === 'overview' && colorScheme === 'light')) {
			await page.screenshot({ path: path.join(shots, `console-${name}-${colorScheme}-narrow.png`), fullPage: all });
		}
		await page.setViewportSize({ width: 1280, height: 900 });
	}
}

/** tabTo presses the tab key until what has the focus is called so. */
async function tabTo(page, name) {
	for (let i = 0; i < 80; i++) {
		await page.keyboard.press('Tab');
		const at = await page.evaluate(() => {
			const e = document.activeElement;
			const box = e.getBoundingClientRect();
			return { name: e.getAttribute('aria-label') ?? e.textContent.trim(), outline: getComputedStyle(e).outlineStyle, high: box.height, wide: box.width };
		});
		if (at.name === name) {
			assert.notEqual(at.outline, 'none', `the focus on ${name} cannot be seen`);
			assert.ok(at.high >= 24 && at.wide >= 24, `${name} is ${at.wide} by ${at.high} px`);
			return;
		}
	}
	assert.fail(`the tab key does not lead to ${name}`);
}

try {
	for (const colorScheme of ['light', 'dark']) {
		await step(`every screen with JavaScript, ${colorScheme}`, async () => {
			const { context, page, troubles } = await enter('admin', 'tom', { colorScheme });
			await walk(page, colorScheme, true);
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
			assert.deepEqual(bare.troubles, []);
			await bare.context.close();
			await context.close();
		});
	}
	await step('a viewer sees every screen that is for viewers, and no act', async () => {
		const { context, page, troubles } = await enter('viewer', 'mia');
		for (const name of ['overview', 'sessions', 'session', 'subject', 'keys', 'users', 'user', 'signing-keys', 'explain', 'configuration', 'people']) {
			const answer = await page.goto(base + screens[name]);
			assert.equal(answer.status(), 200, name);
			await check(page, `${name}, as a viewer`);
			assert.equal(await page.locator('.danger').count(), 0, `${name} offers a viewer to end something`);
		}
		const refused = await page.goto(`${base}/keys/new`);
		assert.equal(refused.status(), 403);
		await check(page, 'a refusal');
		assert.deepEqual(troubles, []);
		await context.close();
	});
	await step('without JavaScript: a session is put on hold, taken off, and ended', async () => {
		const { context, page } = await enter('admin', 'tom', { javaScriptEnabled: false });
		await page.goto(`${base}/subject?name=kim`);
		await page.locator('tbody th a').first().click();
		await page.getByLabel('Why').fill('incident 7');
		await page.getByRole('button', { name: 'Put on hold' }).click();
		assert.match(await page.getByRole('status').first().textContent(), /frozen/);
		assert.equal(await page.locator('.badge.hold').first().textContent(), 'on hold');
		await page.getByRole('button', { name: 'Take off hold' }).click();
		assert.equal(await page.locator('.badge.live').first().textContent(), 'live');
		await page.getByRole('link', { name: 'End…' }).click();
		await page.getByRole('button', { name: 'End the session' }).click();
		assert.match(await page.locator('.state').textContent(), /ended by an administrator/);
		await context.close();
	});
	await step('by the keyboard alone: a subject is signed out everywhere', async () => {
		const { context, page, troubles } = await enter('admin', 'tom');
		await page.goto(`${base}/subject?name=lea`);
		await page.keyboard.press('Tab');
		assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Skip to the content');
		await page.keyboard.press('Enter');
		assert.equal(await page.evaluate(() => document.activeElement.id), 'main');
		await tabTo(page, 'Sign out everywhere…');
		await page.keyboard.press('Enter');
		await page.waitForURL(/subject\/sign-out/);
		await tabTo(page, 'Sign out everywhere');
		await page.keyboard.press('Enter');
		await page.waitForURL(/done=subject-out/);
		assert.match(await page.locator('.done').textContent(), /Signed out everywhere/);
		await check(page, 'after an act');
		assert.deepEqual(troubles, []);
		await context.close();
	});
	await step('what is wrong stands beside the field', async () => {
		const { context, page, troubles } = await enter('admin', 'tom');
		await page.goto(`${base}/keys/new`);
		await page.getByLabel('Subject').fill('shop');
		await page.getByLabel('Networks').fill('everywhere');
		await page.getByRole('button', { name: 'Make the API key' }).click();
		const field = page.getByLabel('Networks');
		assert.equal(await field.getAttribute('aria-invalid'), 'true');
		const described = await field.evaluate((e) => e.getAttribute('aria-describedby').split(' ').map((id) => document.getElementById(id)?.textContent ?? '').join(' '));
		assert.match(described, /want networks such as/);
		assert.equal(await field.inputValue(), 'everywhere');
		await check(page, 'a form with a mistake');
		assert.deepEqual(troubles, []);
		await context.close();
	});
	await step('a secret is shown once', async () => {
		const { context, page, troubles } = await enter('admin', 'tom');
		await page.goto(`${base}/keys/new`);
		await page.getByLabel('Subject').fill('shop');
		await page.getByRole('button', { name: 'Make the API key' }).click();
		assert.match(await page.locator('#secret').textContent(), /^alk_[A-Za-z0-9_-]{84}$/);
		await check(page, 'a secret');
		await page.getByRole('link', { name: 'To the key' }).click();
		assert.doesNotMatch(await page.content(), /alk_[A-Za-z0-9_-]{30}/);
		assert.deepEqual(troubles, []);
		await context.close();
	});
	await step('a theft shows up in the open overview within a second, without a reload', async () => {
		const { context, page, troubles } = await enter('admin', 'tom');
		await page.goto(`${base}/?span=1h`); // a streaming answer has begun when the live part has been swapped once
		await page.locator('#live').waitFor();
		const details = page.locator('#table-sign-ins');
		await details.locator('summary').click();
		await page.evaluate(() => { globalThis.sameDocument = true; });
		await page.waitForTimeout(600); // until the stream is open; the page itself is complete before
		const took = await soonest(async () => {
			const had = await page.locator('.alarms tbody tr').count();
			const began = Date.now();
			const stolen = text(`${control}/theft`);
			await page.waitForFunction((n) => document.querySelectorAll('.alarms tbody tr').length > n, had, { polling: 20, timeout: 10_000 });
			const at = Date.now();
			await stolen;
			return at - began;
		});
		console.log(`        the alarm was there ${took} ms after the theft began`);
		assert.ok(await page.evaluate(() => globalThis.sameDocument), 'the page was loaded anew');
		assert.ok(await details.evaluate((d) => d.open), 'what was open is closed');
		await page.waitForFunction(() => /new events?$/.test(document.getElementById('announce').textContent), null, { timeout: 10_000 });
		await check(page, 'the overview, live');
		assert.deepEqual(troubles, []);
		await context.close();
	});
	await step('who is signed out elsewhere is told, without a reload of theirs', async () => {
		const one = await enter('viewer', 'ada');
		const two = await enter('admin', 'tom');
		await two.page.goto(`${base}/people`);
		await two.page.getByRole('link', { name: 'End the access of ada' }).click();
		await two.page.getByRole('button', { name: 'End the session' }).click();
		await one.page.getByRole('heading', { name: 'Sign in to the console' }).waitFor({ timeout: 10_000 });
		await check(one.page, 'who is signed out');
		await two.context.close();
		await one.context.close();
	});
	await step('a link is good once', async () => {
		const { context, page } = await enter('admin', 'tom');
		await page.getByRole('button', { name: 'Sign out' }).click();
		await page.getByRole('heading', { name: 'Sign in to the console' }).waitFor();
		const link = await text(`${control}/link?role=viewer&name=ada`);
		await page.goto(link);
		await check(page, 'the door');
		await page.getByRole('button', { name: 'Continue' }).click();
		await page.waitForURL(`${base}/`);
		await page.getByRole('button', { name: 'Sign out' }).click();
		const again = await page.goto(link);
		assert.equal(again.status(), 410);
		await check(page, 'a used link');
		await context.close();
	});
} finally {
	await close();
}
