// Makes N sessions in Redis as express-session does: node fill.js PORT N
import session from 'express-session'
import { RedisStore } from 'connect-redis'
import { createClient } from 'redis'
import { randomBytes } from 'node:crypto'

const [port, n] = process.argv.slice(2).map(Number)
const client = createClient({ url: `redis://127.0.0.1:${port}` })
await client.connect()
const store = new RedisStore({ client })
const set = (id, s) => new Promise((done, fail) => store.set(id, s, err => (err ? fail(err) : done())))
for (let i = 0; i < n; i += 500) {
  await Promise.all(Array.from({ length: Math.min(500, n - i) }, (_, j) => {
    const cookie = new session.Cookie({ maxAge: 24 * 3600 * 1000, httpOnly: true, secure: true, sameSite: 'lax' })
    return set(randomBytes(24).toString('base64url'), { cookie, subject: `subject-${i + j}`, signedInAt: Date.now() })
  }))
}
await client.close()
