// The real JavaScript client of Ollama against a running `nfl serve` that has the tiny model as `stories`.
//
// An opt-in job: in a scratch folder `npm install ollama`, copy this file there, and run
// `URL=http://127.0.0.1:PORT node ollama.mjs`.

import assert from 'node:assert/strict'
import { Ollama } from 'ollama'

const client = new Ollama({ host: process.env.URL })
const options = { temperature: 0, num_predict: 12, seed: 1 }

const whole = await client.generate({ model: 'stories', prompt: 'Once upon a time', raw: true, options })
assert.equal(whole.eval_count, 12)
let text = ''
for await (const piece of await client.generate({ model: 'stories', prompt: 'Once upon a time', raw: true, options, stream: true })) {
  text += piece.response
}
assert.equal(text, whole.response)

const steps = []
for await (const step of await client.create({ model: 'small', from: 'stories', quantize: 'q8_0', stream: true })) {
  steps.push(step.status)
}
assert.equal(steps.at(-1), 'success')
assert.equal((await client.show({ model: 'small' })).details.quantization_level, 'Q8_0')

const { embeddings } = await client.embed({ model: 'stories', input: ['a', 'b'] })
assert.equal(embeddings.length, 2)
assert.deepEqual((await client.ps()).models.map((model) => model.name).includes('stories:latest'), true)
assert.equal((await client.copy({ source: 'stories', destination: 'other' })).status, 'success')
assert.equal((await client.list()).models.length, 3)
assert.equal((await client.delete({ model: 'other' })).status, 'success')
await assert.rejects(client.generate({ model: 'none', prompt: 'x' }), { name: 'ResponseError', status_code: 404, error: "model 'none' not found" })

const endless = await client.generate({ model: 'stories', prompt: 'Once', raw: true, stream: true, options: { ...options, num_predict: 400 } })
setTimeout(() => endless.abort(), 20)
await assert.rejects(async () => { for await (const _ of endless); }, { name: 'AbortError' })
const { version } = await client.version()
assert.ok(version)
console.log('all passed')
