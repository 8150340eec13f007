// One errand for OpenAI's own client, named on the command line; what it saw goes to standard output as one JSON value.
"use strict";

const OpenAI = require("openai");

const [errand, baseURL, apiKey, maxRetries] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: Number(maxRetries) });
const asked = { model: "m", messages: [{ role: "user", content: "Say hello." }], max_tokens: 20 };

const errands = {
  async chat() {
    const { data, response } = await client.chat.completions.create(asked).withResponse();
    return {
      text: data.choices[0].message.content,
      total: data.usage.total_tokens,
      charged: response.headers.get("x-tokenworks-charged"),
      request: data._request_id,
    };
  },

  async stream() {
    const stream = await client.chat.completions.create({
      ...asked,
      stream: true,
      stream_options: { include_usage: true },
    });
    const texts = [];
    let last;
    for await (const chunk of stream) {
      if (chunk.choices.length) texts.push(chunk.choices[0].delta.content ?? "");
      last = chunk;
    }
    return { text: texts.join(""), total: last.usage.total_tokens, charged: last.tokenworks.charged };
  },

  async tools() {
    const runner = client.chat.completions.stream({ ...asked, tools: [{ type: "function", function: { name: "f" } }] });
    const message = await runner.finalMessage();
    return message.tool_calls.map((call) => [call.id, call.function.name, call.function.arguments]);
  },

  async left() {
    const stream = await client.chat.completions.create({ ...asked, stream: true });
    for await (const chunk of stream) {
      if (chunk.choices[0]?.delta.content) break;
    }
    return "left";
  },

  async embeddings() {
    const answer = await client.embeddings.create({ model: "m", input: ["one", "two"] });
    return answer.data.map((each) => each.embedding);
  },

  async completion() {
    const stream = await client.completions.create({ model: "m", prompt: "Once", stream: true });
    let text = "";
    for await (const chunk of stream) text += chunk.choices[0].text;
    return text;
  },

  async responses() {
    const kinds = [];
    const stream = client.responses.stream({ model: "m", input: "Say hello." });
    for await (const event of stream) kinds.push(event.type);
    const response = await stream.finalResponse();
    return { text: response.output_text, last: kinds.at(-1), total: response.usage.total_tokens };
  },

  async kept() {
    const first = await client.responses.create({ model: "m", input: "Say hello.", store: true });
    const stream = client.responses.stream({ model: "m", input: "And now?", previous_response_id: first.id });
    const second = await stream.finalResponse();
    const fetched = await client.responses.retrieve(second.id);
    const items = [];
    for await (const item of client.responses.inputItems.list(second.id)) items.push(item.id);
    await client.responses.delete(first.id);
    const after = await client.responses.retrieve(first.id).catch((error) => error.code);
    return { text: fetched.output_text, goneOnFrom: second.previous_response_id === first.id, same: fetched.id === second.id, items: items.length, after };
  },

  async models() {
    const listed = [];
    for await (const model of client.models.list()) listed.push(model.id);
    return listed;
  },
};

errands[errand]()
  .catch((error) => {
    if (!(error instanceof OpenAI.APIError)) throw error;
    return { error: error.constructor.name, status: error.status ?? null, code: error.code ?? null, message: error.message };
  })
  .then((seen) => process.stdout.write(JSON.stringify(seen)));
