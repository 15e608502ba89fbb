// What every client of node asks, and how its program reports; asks.py is the same for Python.
import { readFileSync } from "node:fs";

export const URL = process.env.GATEWAY_URL;
export const MODEL = "edge_vlm", KEY = "none", MAX_TOKENS = 64;
export const HELLO = "Hello.", QUESTION = process.env.QUESTION;
export const PICTURE = readFileSync(process.env.PICTURE);
export const SHAPES = {
  type: "object",
  properties: {
    shape: { type: "string", enum: ["circle", "square", "star"] },
    count: { type: "integer", minimum: 0, maximum: 9 },
  },
  required: ["shape", "count"],
  additionalProperties: false,
};
export const WAIT = {
  type: "object",
  properties: { seconds: { type: "integer", enum: [1, 2] } },
  required: ["seconds"],
  additionalProperties: false,
};
export const RESPONSE_FORMAT = { type: "json_schema", json_schema: { name: "shapes", strict: true, schema: SHAPES } };
export const WAIT_TOOL = { type: "function", function: { name: "wait", description: "Waits.", parameters: WAIT } };

export function pictureMessage() {
  const url = `data:image/png;base64,${PICTURE.toString("base64")}`;
  return { role: "user", content: [{ type: "image_url", image_url: { url } }, { type: "text", text: QUESTION }] };
}

export async function report(asks) {
  const said = {};
  for (const [name, ask] of Object.entries(asks)) {
    try {
      said[name] = { answer: await ask() };
    } catch (error) {
      said[name] = { error: `${error.name}: ${error.message} ${error.responseBody ?? ""}`.slice(0, 2000) };
    }
  }
  console.log(JSON.stringify(said));
}
