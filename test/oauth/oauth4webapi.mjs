// oauth4webapi as it is: every step by hand, with its own strict reading of the answers.
import assert from 'node:assert/strict'
import * as oauth from 'oauth4webapi'
import { authorize } from './browser.mjs'

const { ISSUER, COOKIE, WEB_SECRET, BFF_SECRET, SESSION, SIGNER_KEY } = process.env
const resource = 'https://api.example.com'
const plain = { [oauth.allowInsecureRequests]: true }
const issuer = new URL(ISSUER)

const found = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...plain })
const as = await oauth.processDiscoveryResponse(issuer, found)
assert.deepEqual(as.code_challenge_methods_supported, ['S256'])

const web = { client_id: 'web' }
const auth = oauth.ClientSecretBasic(WEB_SECRET)
const verifier = oauth.generateRandomCodeVerifier()
const state = oauth.generateRandomState()
const url = new URL(as.authorization_endpoint)
url.search = new URLSearchParams({
	client_id: 'web',
	redirect_uri: `${ISSUER}/callback`,
	response_type: 'code',
	scope: 'read offline_access',
	code_challenge: await oauth.calculatePKCECodeChallenge(verifier),
	code_challenge_method: 'S256',
	state,
})
const params = oauth.validateAuthResponse(as, web, await authorize(url, COOKIE), state) // iss is checked, too
const response = await oauth.authorizationCodeGrantRequest(as, web, auth, params, `${ISSUER}/callback`, verifier, plain)
const tokens = await oauth.processAuthorizationCodeResponse(as, web, response)
assert.ok(tokens.refresh_token)

const refreshed = await oauth.processRefreshTokenResponse(as, web, await oauth.refreshTokenGrantRequest(as, web, auth, tokens.refresh_token, plain))
assert.notEqual(refreshed.refresh_token, tokens.refresh_token)

const introspect = async (client, auth, token, options = plain) =>
	oauth.processIntrospectionResponse(as, client, await oauth.introspectionRequest(as, client, auth, token, options))
assert.equal((await introspect(web, auth, refreshed.access_token)).active, true)
// The answer as a JWT (RFC 9701), which the library verifies with the published keys.
const signed = await oauth.introspectionRequest(as, web, auth, refreshed.access_token, { requestJwtResponse: true, ...plain })
assert.match(signed.headers.get('content-type'), /^application\/token-introspection\+jwt/)
const told = await oauth.processIntrospectionResponse(as, { ...web, introspection_signed_response_alg: as.introspection_signing_alg_values_supported[0] }, signed)
assert.equal(told.sub, 'mia')

await oauth.processRevocationResponse(await oauth.revocationRequest(as, web, auth, refreshed.refresh_token, plain))
assert.deepEqual(await introspect(web, auth, refreshed.access_token), { active: false })

const bff = { client_id: 'bff' }
const bffAuth = oauth.ClientSecretPost(BFF_SECRET)
const exchanged = await oauth.processGenericTokenEndpointResponse(
	as,
	bff,
	await oauth.genericTokenEndpointRequest(
		as,
		bff,
		bffAuth,
		'urn:ietf:params:oauth:grant-type:token-exchange',
		{ subject_token: SESSION, subject_token_type: 'urn:ietf:params:oauth:token-type:access_token', scope: 'read', resource },
		plain,
	),
)
assert.equal((await introspect(bff, bffAuth, exchanged.access_token)).aud, resource)

// A client that signs instead of knowing a secret.
const jwk = JSON.parse(SIGNER_KEY)
const key = await crypto.subtle.importKey('jwk', jwk, { name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign'])
const signer = { client_id: 'signer' }
const signerAuth = oauth.PrivateKeyJwt({ key, kid: jwk.kid })
const cc = await oauth.processClientCredentialsResponse(as, signer, await oauth.clientCredentialsGrantRequest(as, signer, signerAuth, {}, plain))
assert.equal((await introspect(signer, signerAuth, cc.access_token)).sub, 'signer')
console.log('oauth4webapi: ok')
