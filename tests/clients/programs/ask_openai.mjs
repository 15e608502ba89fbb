// The official client for node, chat completions.
import OpenAI from "openai";
import { HELLO, KEY, MAX_TOKENS, MODEL, RESPONSE_FORMAT, URL, WAIT_TOOL, pictureMessage, report } from "./asks.mjs";

const client = new OpenAI({ baseURL: URL, apiKey: KEY, maxRetries: 0 });

async function ask(message, options = {}) {
  return client.chat.completions.create({
    model: MODEL, messages: [message], max_tokens: MAX_TOKENS, temperature: 0, ...options,
  });
}

await report({
  chat: async () => (await ask({ role: "user", content: HELLO })).choices[0].message.content,
  picture: async () => (await ask(pictureMessage())).choices[0].message.content,
  stream: async () => {
    const pieces = [];
    for await (const chunk of await ask(pictureMessage(), { stream: true })) pieces.push(chunk.choices[0].delta.content ?? "");
    return pieces;
  },
  structured: async () =>
    JSON.parse((await ask(pictureMessage(), { response_format: RESPONSE_FORMAT })).choices[0].message.content),
  tool: async () => {
    const choice = { type: "function", function: { name: "wait" } };
    const answer = await ask(pictureMessage(), { tools: [WAIT_TOOL], tool_choice: choice });
    const call = answer.choices[0].message.tool_calls[0].function;
    return { name: call.name, arguments: JSON.parse(call.arguments) };
  },
});
