// The AI SDK's provider for OpenAI, whose default is the responses endpoint.
import { createOpenAI } from "@ai-sdk/openai";
import { KEY, MODEL, URL } from "./asks.mjs";
import { ask } from "./ai_sdk.mjs";

await ask(createOpenAI({ baseURL: URL, apiKey: KEY })(MODEL));
