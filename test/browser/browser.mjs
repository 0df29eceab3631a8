// What both browser tests need: a Chromium of their own, steps that print, and a list of what went wrong in the pages.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { chromium } from 'playwright-core';

/** need returns the environment variable, which whoever runs the test sets. */
export function need(name) {
	const value = process.env[name];
	assert.ok(value, `${name} is not set: run go test -tags browser ./cmd/afterlogin`);
	return value;
}

/** launch starts Chromium with a fresh profile, and returns it with what removes both. */
export async function launch() {
	const profile = await mkdtemp(path.join(os.tmpdir(), 'afterlogin-chromium-'));
	const browser = await chromium.launch({
		executablePath: need('CHROMIUM'),
		args: [
			'--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
			'--disable-component-update', '--disable-sync', '--renderer-process-limit=4', `--disk-cache-dir=${profile}`,
		],
	});
	return {
		browser,
		async close() {
			await browser.close();
			await rm(profile, { recursive: true, force: true });
		},
	};
}

/**
 * watch notes in troubles what a context's pages complain of: violations of the Content-Security-Policy, uncaught
 * errors, and errors on the console but for answers with a status that the story asks for.
 */
export async function watch(context, troubles) {
	await context.exposeBinding('reportViolation', (_, text) => troubles.push(`CSP violation: ${text}`));
	await context.addInitScript(() => {
		document.addEventListener('securitypolicyviolation', (e) => {
			window.reportViolation(`${e.violatedDirective} ${e.blockedURI} on ${e.documentURI}`);
		});
	});
	context.on('weberror', (e) => troubles.push(`uncaught: ${e.error()}`));
	context.on('console', (m) => {
		const asked = /^Failed to load resource: the server responded with a status of (400|401|403|404|405|409|410|422) /;
		if (m.type() === 'error' && !asked.test(m.text())) {
			troubles.push(`console: ${m.text()}`);
		}
	});
}

/** step runs one step of the story and says how it went. */
export async function step(what, run) {
	const began = Date.now();
	try {
		await run();
	} catch (e) {
		console.log(`FAILED  ${what}`);
		throw e;
	}
	console.log(`ok      ${what} (${Date.now() - began} ms)`);
}

/** soonest measures up to three times, until a time was under a second, and returns that one: a busy machine may stall once. */
export async function soonest(measure) {
	const took = [];
	for (let i = 0; i < 3; i++) {
		took.push(await measure());
		if (took.at(-1) < 1000) {
			return took.at(-1);
		}
	}
	assert.fail(`it took ${took.join(', ')} ms`);
}

/** cookieOf returns the one session cookie of the context, and undefined if there is none. */
export async function cookieOf(context, name) {
	const all = (await context.cookies()).filter((c) => c.name === name);
	assert.ok(all.length <= 1, 'more than one session cookie');
	return all[0];
}

/** raw sends a request outside of any browser, from the given local address if there is one. */
export function raw(url, { method = 'GET', headers = {}, body, localAddress } = {}) {
	return new Promise((resolve, reject) => {
		const req = http.request(url, { method, headers, localAddress, agent: false, timeout: 10_000 }, (res) => {
			let text = '';
			res.setEncoding('utf8');
			res.on('data', (chunk) => { text += chunk; });
			res.on('end', () => resolve({
				status: res.statusCode,
				headers: res.headers,
				body: text,
				reason: /<code data-reason>([a-z_]+)<\/code>/.exec(text)?.[1],
			}));
		});
		req.on('timeout', () => req.destroy(new Error('no answer within 10 s')));
		req.on('error', reject);
		req.end(body);
	});
}

export const sleep = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });
