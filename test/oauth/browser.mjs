// What the person's browser does: it follows the redirects on the server, says yes on the consent page, and hands the
// address it is sent to at last to the application.
import assert from 'node:assert/strict'
import http from 'node:http'

const unescape = (s) => s.replaceAll('&#43;', '+').replaceAll('&#34;', '"').replaceAll('&#39;', "'").replaceAll('&amp;', '&')

/** send makes a request without following redirects. Not fetch: that is for scripts, and says so (Sec-Fetch-Mode). */
function send(url, { method = 'GET', headers, body }) {
	return new Promise((resolve, reject) => {
		const request = http.request(url, { method, headers }, (response) => {
			let text = ''
			response.setEncoding('utf8')
			response.on('data', (chunk) => (text += chunk))
			response.on('end', () => resolve({ status: response.statusCode, location: response.headers.location, text }))
		})
		request.on('error', reject)
		request.end(body)
	})
}

/** Returns the address of the application, with the answer in it. */
export async function authorize(url, cookie) {
	let response = await send(url, { headers: { cookie, accept: 'text/html' } })
	if (response.status === 200) {
		const form = new URLSearchParams({ decision: 'allow' })
		for (const [, name, value] of response.text.matchAll(/<input type="hidden" name="([^"]*)" value="([^"]*)">/g)) {
			form.set(name, unescape(value))
		}
		response = await send(new URL('/oauth/authorize', url), {
			method: 'POST',
			headers: { cookie, origin: new URL(url).origin, 'content-type': 'application/x-www-form-urlencoded' },
			body: form.toString(),
		})
	}
	assert.equal(response.status, 303)
	return new URL(response.location)
}
