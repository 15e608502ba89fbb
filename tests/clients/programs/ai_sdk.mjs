// What both programs of the AI SDK ask, with the model of one of its providers.
import { Output, generateText, jsonSchema, streamText, tool } from "ai";
import { HELLO, MAX_TOKENS, PICTURE, QUESTION, SHAPES, WAIT, report } from "./asks.mjs";

export async function ask(model) {
  const common = { model, temperature: 0, maxOutputTokens: MAX_TOKENS, maxRetries: 0 };
  const messages = [
    { role: "user", content: [{ type: "image", image: PICTURE, mediaType: "image/png" }, { type: "text", text: QUESTION }] },
  ];
  await report({
    chat: async () => (await generateText({ ...common, prompt: HELLO })).text,
    picture: async () => (await generateText({ ...common, messages })).text,
    stream: async () => {
      const pieces = [];
      let failure;
      const answer = streamText({ ...common, messages, onError: ({ error }) => (failure = error) });
      for await (const piece of answer.textStream) pieces.push(piece);
      if (failure) throw failure;
      return pieces;
    },
    structured: async () =>
      (await generateText({ ...common, messages, output: Output.object({ schema: jsonSchema(SHAPES) }) })).output,
    tool: async () => {
      const tools = { wait: tool({ description: "Waits.", inputSchema: jsonSchema(WAIT) }) };
      const choice = { type: "tool", toolName: "wait" };
      const [call] = (await generateText({ ...common, messages, tools, toolChoice: choice })).toolCalls;
      return { name: call.toolName, arguments: call.input };
    },
  });
}
