// OpenAI's and Anthropic's own clients for Node, asking what the test of `test_sdk_node.py` compares; prints one JSON object.
import Anthropic, { NotFoundError as UnknownModel } from "@anthropic-ai/sdk";
import OpenAI, { BadRequestError, NotFoundError } from "openai";

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0, timeout: 60_000 });
const claude = new Anthropic({ baseURL: new URL(process.argv[2]).origin, apiKey: "none", maxRetries: 0, timeout: 60_000 });
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const weather = { name: "get_weather", description: "The weather in a city.", parameters };
const tools = [{ type: "function", function: weather }];
const flat = [{ type: "function", strict: false, ...weather }];
const schemed = [{ name: weather.name, description: weather.description, input_schema: parameters }];
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

async function message() {
  const answer = await claude.messages.create({ model, max_tokens: 200, messages: user("two calls"), tools: schemed });
  return { reason: answer.stop_reason, calls: answer.content.map((block) => [block.type, block.name, block.input]) };
}

async function messageStream() {
  const request = { model, max_tokens: 200, messages: user("thought then call"), tools: schemed };
  const stream = claude.messages.stream(request);
  const seen = [];
  stream.on("streamEvent", (event) => seen.push(event.type));
  const { content, stop_reason: reason, usage } = await stream.finalMessage();
  const { input_tokens: counted } = await claude.messages.countTokens({ ...request, max_tokens: undefined });
  const [thought, call] = content;
  const prompt = usage.input_tokens + usage.cache_read_input_tokens;
  return { thought: thought.thinking, input: call.input, reason, counted: counted === prompt, first: seen[0], last: seen.at(-1) };
}

async function messageErrors() {
  const request = { model: "claude-of-tomorrow", max_tokens: 5, messages: user("plain") };
  const error = await claude.messages.create(request).catch((error) => error);
  return [error instanceof UnknownModel, error.type, error.requestID?.startsWith("req_")];
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
const asks = [chat, chatStream, completion, response, responseStream, message, messageStream, messageErrors, errors];
for (const ask of asks) found[ask.name] = await ask();
console.log(JSON.stringify(found));
