// Calls through the vendors' SDKs for Node, one a line: {"sdk", "stream", "given"} in, the SDK's own object out, or what it raised.
// Addresses and keys are read by the SDKs themselves from the environment. What is named `bytes` comes in base64.
import { createInterface } from "node:readline";
import Anthropic from "@anthropic-ai/sdk";
import { BedrockRuntimeClient, ConverseCommand, ConverseStreamCommand } from "@aws-sdk/client-bedrock-runtime";
import OpenAI from "openai";

const openai = new OpenAI({ maxRetries: 0 });
const anthropic = new Anthropic({ maxRetries: 0 });
const bedrock = new BedrockRuntimeClient({ maxAttempts: 1 });
const events = async (answer) => {
  const found = [];
  for await (const event of answer.stream) found.push(event);
  return found;
};
const revived = (name, value) => (name === "bytes" ? Buffer.from(value, "base64") : value);
const whole = {
  openai_chat: (given) => openai.chat.completions.create(given),
  openai_responses: (given) => openai.responses.create(given),
  anthropic_messages: (given) => anthropic.messages.create(given),
  bedrock_converse: (given) => bedrock.send(new ConverseCommand(given)),
};
const streamed = {
  openai_chat: (given) => openai.chat.completions.stream(given).finalChatCompletion(),
  openai_responses: (given) => openai.responses.stream(given).finalResponse(),
  anthropic_messages: (given) => anthropic.messages.stream(given).finalMessage(),
  bedrock_converse: async (given) => events(await bedrock.send(new ConverseStreamCommand(given))),
};

for await (const line of createInterface({ input: process.stdin })) {
  const { sdk, stream, given } = JSON.parse(line, revived);
  try {
    console.log(JSON.stringify({ answer: await (stream ? streamed : whole)[sdk](given) }));
  } catch (error) {
    const status = error.status ?? error.$metadata?.httpStatusCode ?? null;
    console.log(JSON.stringify({ kind: error.constructor.name, status, message: error.message }));
  }
}
