// What both scripts of the console need: the door into it, and what each of its pages is examined for.

import assert from 'node:assert/strict';
import axe from 'axe-core';
import { launch, need, watch } from './browser.mjs';

export const base = need('CONSOLE_URL');
export const control = need('CONTROL_URL');
export const shots = need('SHOTS');
export const all = Boolean(process.env.ALL_SHOTS);
const { browser, close } = await launch();
export { close };

export const text = async (url) => {
	const r = await fetch(url);
	assert.equal(r.status, 200, `${url}: ${r.status}`);
	return r.text();
};

/** enter opens a link in a new context and goes through the door. */
export async function enter(role, name, options) {
	const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
	const troubles = [];
	if (options?.javaScriptEnabled !== false) {
		await watch(context, troubles);
	}
	const page = await context.newPage();
	await page.goto(await text(`${control}/link?role=${role}&name=${name}`));
	assert.equal(new URL(page.url()).search, '', 'the link stands in the address');
	await page.getByRole('button', { name: 'Continue' }).click();
	await page.waitForURL(`${base}/`);
	return { context, page, troubles };
}

/** check runs axe on the page. */
export async function check(page, where) {
	await page.waitForLoadState(); // with its style
	await page.evaluate(axe.source);
	const { violations } = await page.evaluate(() => globalThis.axe.run(document, {
		runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'],
	}));
	assert.deepEqual(violations.map((v) => `${v.id}: ${v.nodes.map((n) => `${n.html.slice(0, 160)} ${n.failureSummary}`).join('\n   ')}`), [], where);
}

/** sideways fails if the page is wider than the window. */
export async function sideways(page, where) {
	const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
	assert.ok(over <= 0, `${where} is ${over} px wider than the window of ${page.viewportSize().width} px`);
}
