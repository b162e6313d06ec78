// The real JavaScript client of Ollama against `nfl serve`.
//
// An opt-in job, since it needs the network once: in a scratch folder `npm install ollama`, copy this file there, and run
// `python3 .../tests/clients/served.py NFL STORIES.gguf node ollama.mjs` in it.

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

const messages = [{ role: 'user', content: 'Tell me a story.' }]
const said = await client.chat({ model: 'chatty', messages, options })
assert.equal(said.message.role, 'assistant')
let told = ''
for await (const piece of await client.chat({ model: 'chatty', messages, options, stream: true })) told += piece.message.content
assert.equal(told, said.message.content)

const format = {
  type: 'object', properties: { age: { type: 'integer', minimum: 0, maximum: 9 } }, required: ['age'], additionalProperties: false,
}
const formed = await client.chat({ model: 'chatty', messages, format, options: { ...options, num_predict: 64 } })
assert.ok(JSON.parse(formed.message.content).age <= 9)

const parameters = { type: 'object', properties: { a: { type: 'integer' } }, required: ['a'] }
const tools = [{ type: 'function', function: { name: 'half', description: 'Halves a number.', parameters } }]
const turns = [
  ...messages,
  { role: 'assistant', content: '', tool_calls: [{ function: { name: 'half', arguments: { a: 4 } } }] },
  { role: 'tool', content: '2', tool_name: 'half' },
]
const offered = await client.chat({ model: 'chatty', messages: turns, tools, options })
assert.ok(offered.done && offered.prompt_eval_count > said.prompt_eval_count)

const steps = []
for await (const step of await client.create({ model: 'small', from: 'stories', quantize: 'q8_0', stream: true })) {
  steps.push(step.status)
}
assert.equal(steps.at(-1), 'success')
assert.equal((await client.show({ model: 'small' })).details.quantization_level, 'Q8_0')

const { embeddings } = await client.embed({ model: 'stories', input: ['a', 'b'] })
assert.equal(embeddings.length, 2)
assert.ok((await client.ps()).models.some((model) => model.name === 'stories:latest'))
assert.equal((await client.copy({ source: 'stories', destination: 'other' })).status, 'success')
const names = (await client.list()).models.map((model) => model.name).sort()
assert.deepEqual(names, ['chatty:latest', 'other:latest', 'small:latest', 'stories:latest'])
assert.equal((await client.delete({ model: 'other' })).status, 'success')

const missing = { name: 'ResponseError', status_code: 404, error: "model 'none' not found" }
await assert.rejects(client.generate({ model: 'none', prompt: 'x' }), missing)
await assert.rejects(client.chat({ model: 'none', messages, stream: true }), missing)
await assert.rejects(client.chat({ model: 'stories', messages, tools }), { name: 'ResponseError', status_code: 400 })

const endless = await client.generate({ model: 'stories', prompt: 'Once', raw: true, stream: true, options: { ...options, num_predict: 400 } })
setTimeout(() => endless.abort(), 20)
await assert.rejects(async () => { for await (const _ of endless); }, { name: 'AbortError' })
const { version } = await client.version()
assert.ok(version)
console.log('all passed')
