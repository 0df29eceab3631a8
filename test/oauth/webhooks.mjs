// A receiver of webhooks, with the library of Standard Webhooks.
import { createServer } from 'node:http'
import { Webhook } from 'standardwebhooks'

const webhook = new Webhook(process.env.WEBHOOK_SECRET)

createServer(async (request, response) => {
	const parts = []
	for await (const part of request) parts.push(part)
	const body = Buffer.concat(parts).toString()
	try {
		const { event } = webhook.verify(body, request.headers)
		console.log(event.id, event.type, event.session, event.subject)
		response.writeHead(204).end()
	} catch {
		response.writeHead(401).end()
	}
}).listen(Number(process.env.PORT), '127.0.0.1')
