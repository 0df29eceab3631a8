// An OpenID provider that nobody here wrote: npm oidc-provider, with a sign-in page that believes everybody.
// Run by: go test -tags browser ./cmd/afterlogin/...
//
//   node provider.mjs 127.0.0.1:PORT
//
// CLIENTS  the registered clients, as JSON
import http from 'node:http'
import { generateKeyPairSync, randomBytes } from 'node:crypto'

console.warn = console.info = () => {} // that it is for tests is known
const { default: Provider } = await import('oidc-provider')

const [host, port] = process.argv[2].split(':')
const issuer = `http://${host}:${port}`

/** post sends what a provider sends to applications. Names below localhost are this machine, whatever resolves them. */
const post = (url, { method, headers, body, signal }) =>
	new Promise((resolve, reject) => {
		const to = new URL(url)
		const text = String(body)
		const request = http.request(
			{ host: '127.0.0.1', port: to.port, path: to.pathname + to.search, method, signal, agent: false,
				headers: { ...Object.fromEntries(new Headers(headers)), host: to.host, 'content-length': Buffer.byteLength(text) } },
			(response) => {
				response.resume()
				response.on('end', () => resolve({ status: response.statusCode }))
			},
		)
		request.on('error', reject)
		request.end(text)
	})

const page = (title, body) => `<!doctype html><html lang="en"><meta charset="utf-8"><title>${title}</title><main><h1>${title}</h1>${body}</main>`

const key = (type, options, use) => ({ ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }), ...use })
const provider = new Provider(issuer, {
	clients: JSON.parse(process.env.CLIENTS),
	jwks: { keys: [key('rsa', { modulusLength: 2048 }, { use: 'sig', alg: 'RS256' }), key('ec', { namedCurve: 'P-256' }, { use: 'sig', alg: 'ES256' }), key('ed25519', {}, { use: 'sig', alg: 'EdDSA' })] },
	enabledJWA: { idTokenSigningAlgValues: ['RS256', 'ES256', 'EdDSA', 'HS256'] },
	cookies: { keys: [randomBytes(32).toString('hex')] },
	features: {
		devInteractions: { enabled: false },
		backchannelLogout: { enabled: true },
		claimsParameter: { enabled: true },
		// Its own pages ask other hosts for fonts.
		rpInitiatedLogout: {
			enabled: true,
			logoutSource(ctx, form) {
				ctx.body = page('The provider', `${form}<button type="submit" form="op.logoutForm" name="logout" value="yes">Yes, sign me out</button>`)
			},
			postLogoutSuccessSource(ctx) {
				ctx.body = page('The provider', '<p>Signed out.</p>')
			},
		},
	},
	renderError(ctx, out) {
		ctx.body = page('The provider', `<p>${JSON.stringify(out).replaceAll('<', '&lt;')}</p>`)
	},
	acrValues: ['silver', 'gold'],
	claims: { acr: null, amr: null, auth_time: null, openid: ['sub', 'amr', 'acr'], sid: null, iss: null },
	findAccount: (_, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
	interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
	// Nobody is asked for consent.
	async loadExistingGrant(ctx) {
		const grant = new ctx.oidc.provider.Grant({ clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId })
		grant.addOIDCScope('openid email profile')
		grant.addOIDCClaims(['acr', 'auth_time'])
		await grant.save()
		return grant
	},
	fetch: post, // its own speaks with nobody on a loopback address
	ttl: { Session: 3600, Interaction: 600, Grant: 3600, IdToken: 300, AuthorizationCode: 60, AccessToken: 300 },
})
provider.on('server_error', (_, err) => console.error(err))
provider.on('backchannel.error', (_, err) => console.error(err))

const answer = (res, status, text) => {
	res.writeHead(status, { 'content-type': 'text/html; charset=utf-8' })
	res.end(text)
}

const callback = provider.callback()
const handle = async (req, res) => {
	try {
		const url = new URL(req.url, issuer)
		if (!url.pathname.startsWith('/interaction/')) {
			callback(req, res)
			return
		}
		const { prompt } = await provider.interactionDetails(req, res)
		if (req.method !== 'POST') {
			answer(res, 200, page('The provider', `<p id="prompt">${prompt.name}</p><form method="post"><label>Account <input name="account" required></label><button>Sign in there</button></form>`))
			return
		}
		let body = ''
		for await (const chunk of req.setEncoding('utf8')) body += chunk
		const accountId = new URLSearchParams(body).get('account')
		const acr = prompt.details.acr?.value ?? prompt.details.acr?.values?.[0]
		await provider.interactionFinished(req, res, { login: { accountId, amr: ['pwd'], ...(acr && { acr }) } }, { mergeWithLastSubmission: false })
	} catch (err) {
		answer(res, 400, page('The provider', `<p>${String(err).replaceAll('<', '&lt;')}</p>`))
	}
}

http.createServer(handle).listen(port, host)
