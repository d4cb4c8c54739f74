// Calls through the vendors' SDKs for Node, one a line: {"sdk", "stream", "given"} in, the SDK's own object out, or what it raised.
// Addresses and keys are read by the SDKs themselves from the environment.
import { createInterface } from "node:readline";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const openai = new OpenAI({ maxRetries: 0 });
const anthropic = new Anthropic({ maxRetries: 0 });
const whole = {
  openai_chat: (given) => openai.chat.completions.create(given),
  openai_responses: (given) => openai.responses.create(given),
  anthropic_messages: (given) => anthropic.messages.create(given),
};
const streamed = {
  openai_chat: (given) => openai.chat.completions.stream(given).finalChatCompletion(),
  openai_responses: (given) => openai.responses.stream(given).finalResponse(),
  anthropic_messages: (given) => anthropic.messages.stream(given).finalMessage(),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { sdk, stream, given } = JSON.parse(line);
  try {
    console.log(JSON.stringify({ answer: await (stream ? streamed : whole)[sdk](given) }));
  } catch (error) {
    console.log(JSON.stringify({ kind: error.constructor.name, status: error.status ?? null, message: error.message }));
  }
}
