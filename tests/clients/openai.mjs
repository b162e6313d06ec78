// The real JavaScript client of OpenAI against `nfl serve`.
//
// An opt-in job, since it needs the network once: in a scratch folder `npm install openai`, copy this file there, and run
// `python3 .../tests/clients/served.py NFL STORIES.gguf node openai.mjs` in it.

import assert from 'node:assert/strict'
import OpenAI from 'openai'

const client = new OpenAI({ baseURL: `${process.env.URL}/v1`, apiKey: 'none', maxRetries: 0 })
const messages = [{ role: 'user', content: 'Tell me a story.' }]
const greedy = { model: 'chatty', messages, temperature: 0, max_completion_tokens: 12 }

const whole = await client.chat.completions.create(greedy)
assert.equal(whole.usage.completion_tokens, 12)
let text = ''
for await (const piece of await client.chat.completions.create({ ...greedy, stream: true })) {
  text += piece.choices[0].delta.content ?? ''
}
assert.equal(text, whole.choices[0].message.content)

// Room for a call: the tiny model dawdles before it.
const roomy = { ...greedy, parallel_tool_calls: false, max_completion_tokens: 200 }
const parameters = { type: 'object', properties: { a: { enum: [1, 2] } }, required: ['a'], additionalProperties: false }
const tools = [{ type: 'function', function: { name: 'half', parameters } }]
const stream = client.chat.completions.stream({ ...roomy, tools, tool_choice: 'required' })
const called = (await stream.finalChatCompletion()).choices[0]
assert.equal(called.finish_reason, 'tool_calls')
const [call] = called.message.tool_calls
assert.ok([1, 2].includes(JSON.parse(call.function.arguments).a))
const answered = await client.chat.completions.create({
  ...greedy, tools, tool_choice: 'none',
  messages: [...messages, called.message, { role: 'tool', tool_call_id: call.id, content: '4' }],
})
assert.ok(answered.choices[0].message.content)

const schema = { type: 'object', properties: { kind: { enum: ['cat', 'dog'] } }, required: ['kind'], additionalProperties: false }
const response_format = { type: 'json_schema', json_schema: { name: 'pet', strict: true, schema } }
const formed = await client.chat.completions.parse({ ...greedy, max_completion_tokens: 60, response_format })
assert.ok(['cat', 'dog'].includes(formed.choices[0].message.parsed.kind))

const completion = await client.completions.create({ model: 'stories', prompt: 'Once upon a time', max_tokens: 4, echo: true })
assert.ok(completion.choices[0].text.startsWith('Once upon a time'))
const embedded = await client.embeddings.create({ model: 'stories', input: ['a', 'b'], dimensions: 8 })
assert.equal(embedded.data[1].embedding.length, 8)

const asked = { model: 'chatty', input: 'Tell me a story.', temperature: 0, max_output_tokens: 16 }
const kinds = []
for await (const event of await client.responses.create({ ...asked, stream: true })) kinds.push(event.type)
assert.deepEqual([kinds[0], kinds.at(-1)], ['response.created', 'response.incomplete'])
const first = await client.responses.create(asked)
const second = await client.responses.create({ ...asked, previous_response_id: first.id })
assert.ok(second.usage.input_tokens > first.usage.input_tokens)

const names = []
for await (const model of client.models.list()) names.push(model.id)
assert.ok(names.length >= 2)
await assert.rejects(client.models.retrieve('none'), OpenAI.NotFoundError)
await assert.rejects(client.chat.completions.create({ ...greedy, temperature: -1 }), OpenAI.BadRequestError)

const endless = await client.completions.create({ model: 'stories', prompt: 'Once', max_tokens: 400, stream: true })
for await (const _ of endless) endless.controller.abort()
assert.ok(endless.controller.signal.aborted)
console.log('all passed')
