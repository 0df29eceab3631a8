// The demo's console in Chromium: the theft in the shop shows up in the open overview within a second, without a reload.
// Run by: go test -tags browser -run TestDemoConsoleInChromium ./cmd/afterlogin
//
// LINK          leads into the console, once
// CONTROL_URL   /theft plays the whole theft and answers when the thief is thrown out
// CHROMIUM      the browser's program

import assert from 'node:assert/strict';
import { launch, need, soonest, step, watch } from './browser.mjs';

const { browser, close } = await launch();
try {
	const context = await browser.newContext();
	const troubles = [];
	await watch(context, troubles);
	const page = await context.newPage();
	await step('the link that the demo prints leads into the console', async () => {
		await page.goto(need('LINK'));
		await page.getByRole('button', { name: 'Continue' }).click();
		await page.getByRole('heading', { name: 'Overview' }).waitFor();
	});
	await step('the theft shows up within a second, without a reload', async () => {
		assert.equal(await page.locator('.alarms tbody tr').count(), 0, 'alarms before there is a thief');
		await page.evaluate(() => { globalThis.sameDocument = true; });
		const took = await soonest(async () => {
			const had = await page.locator('.alarms tbody tr').count();
			const theft = fetch(`${need('CONTROL_URL')}/theft`);
			await page.waitForFunction((n) => document.querySelectorAll('.alarms tbody tr').length > n, had, { polling: 20, timeout: 60_000 });
			const seen = Date.now();
			assert.equal((await theft).status, 200);
			// The audit log says when it was.
			const lines = await page.evaluate(async () => (await fetch('/console/audit/export?type=session.reuse_detected')).text());
			const alarm = lines.trim().split('\n').map((l) => JSON.parse(l)).filter((l) => l.type === 'session.reuse_detected')[had];
			return seen - Date.parse(alarm.at);
		});
		console.log(`        it was there after ${took} ms`);
		assert.ok(await page.evaluate(() => globalThis.sameDocument), 'the page was loaded anew');
	});
	assert.deepEqual(troubles, []);
} finally {
	await close();
}
