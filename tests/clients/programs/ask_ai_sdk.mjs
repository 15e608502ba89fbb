// The AI SDK's provider for OpenAI servers, chat completions.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { KEY, MODEL, URL } from "./asks.mjs";
import { ask } from "./ai_sdk.mjs";

const provider = createOpenAICompatible({
  name: "edge", baseURL: URL, apiKey: KEY, supportsStructuredOutputs: true,
});
await ask(provider(MODEL));
