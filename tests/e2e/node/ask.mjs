// OpenAI's own client for Node, asking what the test of `test_sdk_node.py` compares; prints one JSON object.
import OpenAI, { BadRequestError, NotFoundError } from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0, timeout: 60_000 });
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const weather = { name: "get_weather", description: "The weather in a city.", parameters };
const tools = [{ type: "function", function: weather }];
const flat = [{ type: "function", strict: false, ...weather }];
const user = (content) => [{ role: "user", content }];
const model = "default";

async function chat() {
  const { choices, usage } = await client.chat.completions.create({ model, messages: user("plain") });
  return { text: choices[0].message.content, reason: choices[0].finish_reason, tokens: usage.total_tokens };
}

async function chatStream() {
  const stream = client.chat.completions.stream({ model, messages: user("text then call"), tools });
  const { message, finish_reason: reason } = (await stream.finalChatCompletion()).choices[0];
  const calls = message.tool_calls.map((call) => [call.function.name, JSON.parse(call.function.arguments)]);
  return { text: message.content, reason, calls };
}

async function completion() {
  const { choices } = await client.completions.create({ model, prompt: "<|script:plain|>", max_tokens: 50 });
  return { text: choices[0].text, reason: choices[0].finish_reason };
}

async function response() {
  const answer = await client.responses.create({ model, input: "two calls", tools: flat });
  return answer.output.map((item) => [item.type, item.name, JSON.parse(item.arguments)]);
}

async function responseStream() {
  const stream = client.responses.stream({ model, input: "reasoned" });
  const seen = [];
  for await (const event of stream) seen.push(event.type);
  const answer = await stream.finalResponse();
  return { text: answer.output.at(-1).content[0].text, status: answer.status, first: seen[0], last: seen.at(-1) };
}

async function errors() {
  const kinds = [];
  for (const wrong of [{ model: "gpt-9" }, { model, previous_response_id: "resp_1" }]) {
    const error = await client.responses.create({ input: "plain", ...wrong }).catch((error) => error);
    kinds.push(error instanceof NotFoundError ? "not found" : error instanceof BadRequestError ? error.param : `${error}`);
  }
  return kinds;
}

const found = {};
for (const ask of [chat, chatStream, completion, response, responseStream, errors]) found[ask.name] = await ask();
console.log(JSON.stringify(found));
