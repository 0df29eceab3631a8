// What the person's browser does: it follows the redirects on the server, says yes on the consent page, and hands the
// address it is sent to at last to the application.
import assert from 'node:assert/strict'

const unescape = (s) => s.replaceAll('&#43;', '+').replaceAll('&#34;', '"').replaceAll('&#39;', "'").replaceAll('&amp;', '&')

/** Returns the address of the application, with the answer in it. */
export async function authorize(url, cookie) {
	let response = await fetch(url, { redirect: 'manual', headers: { cookie, accept: 'text/html' } })
	if (response.status === 200) {
		const page = await response.text()
		const form = new URLSearchParams({ decision: 'allow' })
		for (const [, name, value] of page.matchAll(/<input type="hidden" name="([^"]*)" value="([^"]*)">/g)) {
			form.set(name, unescape(value))
		}
		response = await fetch(new URL('/oauth/authorize', url), {
			method: 'POST',
			redirect: 'manual',
			headers: { cookie, origin: new URL(url).origin },
			body: form,
		})
	}
	assert.equal(response.status, 303)
	return new URL(response.headers.get('location'))
}
