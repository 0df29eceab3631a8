// openid-client as it is, against a server at ISSUER: discovery, authorization code, refresh, introspection, revocation,
// client credentials and token exchange.
import assert from 'node:assert/strict'
import * as client from 'openid-client'
import { authorize } from './browser.mjs'

const { ISSUER, COOKIE, WEB_SECRET, JOB_SECRET, BFF_SECRET, SESSION } = process.env
const resource = 'https://api.example.com'
const options = { algorithm: 'oauth2', execute: [client.allowInsecureRequests] } // RFC 8414; plain HTTP on this machine
const issuer = new URL(ISSUER)

for (const authentication of [client.ClientSecretBasic(WEB_SECRET), client.ClientSecretPost(WEB_SECRET)]) {
	const web = await client.discovery(issuer, 'web', undefined, authentication, options)
	assert.equal(web.serverMetadata().issuer, ISSUER)
	const verifier = client.randomPKCECodeVerifier()
	const state = client.randomState()
	const url = client.buildAuthorizationUrl(web, {
		redirect_uri: `${ISSUER}/callback`,
		scope: 'read write offline_access',
		code_challenge: await client.calculatePKCECodeChallenge(verifier),
		code_challenge_method: 'S256',
		state,
	})
	const back = await authorize(url, COOKIE)
	const tokens = await client.authorizationCodeGrant(web, back, { pkceCodeVerifier: verifier, expectedState: state })
	assert.equal(tokens.token_type, 'bearer') // the library lowers it
	assert.equal(tokens.scope, 'read write offline_access')

	const refreshed = await client.refreshTokenGrant(web, tokens.refresh_token)
	assert.notEqual(refreshed.refresh_token, tokens.refresh_token)
	const again = await client.refreshTokenGrant(web, tokens.refresh_token) // as if the answer had been lost
	assert.equal(again.refresh_token, refreshed.refresh_token)

	let told = await client.tokenIntrospection(web, refreshed.access_token)
	assert.equal(told.active, true)
	assert.equal(told.sub, 'mia')
	assert.equal(told.client_id, 'web')
	await client.tokenRevocation(web, refreshed.refresh_token)
	told = await client.tokenIntrospection(web, refreshed.access_token)
	assert.deepEqual(told, { active: false })
	await assert.rejects(client.refreshTokenGrant(web, refreshed.refresh_token), (err) => err.error === 'invalid_grant')
}

// A public client: no secret, a loopback address with whatever port, consent.
{
	const app = await client.discovery(issuer, 'app', undefined, client.None(), options)
	const verifier = client.randomPKCECodeVerifier()
	const url = client.buildAuthorizationUrl(app, {
		redirect_uri: 'http://127.0.0.1:43210/cb',
		scope: 'read',
		code_challenge: await client.calculatePKCECodeChallenge(verifier),
		code_challenge_method: 'S256',
	})
	const back = await authorize(url, COOKIE)
	const tokens = await client.authorizationCodeGrant(app, back, { pkceCodeVerifier: verifier })
	await client.refreshTokenGrant(app, tokens.refresh_token)
}

{
	const job = await client.discovery(issuer, 'job', undefined, client.ClientSecretBasic(JOB_SECRET), options)
	const tokens = await client.clientCredentialsGrant(job, { scope: 'read', resource })
	assert.equal((await client.tokenIntrospection(job, tokens.access_token)).aud, resource)
}

{
	const bff = await client.discovery(issuer, 'bff', undefined, client.ClientSecretBasic(BFF_SECRET), options)
	const tokens = await client.genericGrantRequest(bff, 'urn:ietf:params:oauth:grant-type:token-exchange', {
		subject_token: SESSION,
		subject_token_type: 'urn:afterlogin:token-type:session',
		requested_token_type: 'urn:ietf:params:oauth:token-type:jwt',
		scope: 'read',
		resource,
	})
	assert.equal(tokens.issued_token_type, 'urn:ietf:params:oauth:token-type:jwt')
	const told = await client.tokenIntrospection(bff, tokens.access_token)
	assert.equal(told.sub, 'mia')
	assert.equal(told.scope, 'read')
}
console.log('openid-client: ok')
