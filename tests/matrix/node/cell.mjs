// One call through a vendor's SDK for Node: node cell.mjs SDK FEATURE MODEL, with the address and the key as each SDK reads them.
// Prints what the SDK made of it as one line of JSON.
const [sdk, feature, model, image] = process.argv.slice(2);
const PARAMETERS = { type: "object", properties: { sku: { type: "string" } }, required: ["sku"] };
const stream = feature.endsWith("stream");

async function openai() {
  const { default: OpenAI } = await import("openai");
  const client = new OpenAI({ maxRetries: 0 });
  const content = feature.startsWith("image")
    ? [{ type: "text", text: "What is it?" }, { type: "image_url", image_url: { url: `data:image/png;base64,${image}` } }]
    : "How many?";
  const asked = { model, messages: [{ role: "user", content }] };
  if (feature.startsWith("tool")) {
    asked.tools = [{ type: "function", function: { name: "stock", description: "How many are there?", parameters: PARAMETERS } }];
  }
  const completion = stream
    ? await client.chat.completions.stream({ ...asked, stream_options: { include_usage: true } }).finalChatCompletion()
    : await client.chat.completions.create(asked);
  const { message, finish_reason } = completion.choices[0];
  return {
    text: message.content ?? "",
    calls: (message.tool_calls ?? []).map((call) => [call.id, call.function.name, JSON.parse(call.function.arguments)]),
    stop: { stop: "end", tool_calls: "tools" }[finish_reason],
    usage: [completion.usage.prompt_tokens, completion.usage.completion_tokens],
  };
}

async function anthropic() {
  const { default: Anthropic } = await import("@anthropic-ai/sdk");
  const client = new Anthropic({ maxRetries: 0 });
  const source = { type: "base64", media_type: "image/png", data: image };
  const content = feature.startsWith("image") ? [{ type: "text", text: "What is it?" }, { type: "image", source }] : "How many?";
  const asked = { model, max_tokens: 1000, messages: [{ role: "user", content }] };
  if (feature.startsWith("tool")) {
    asked.tools = [{ name: "stock", description: "How many are there?", input_schema: PARAMETERS }];
  }
  const message = stream ? await client.messages.stream(asked).finalMessage() : await client.messages.create(asked);
  return {
    text: message.content.map((block) => block.text ?? "").join(""),
    calls: message.content.filter((block) => block.type === "tool_use").map((block) => [block.id, block.name, block.input]),
    stop: { end_turn: "end", tool_use: "tools" }[message.stop_reason],
    usage: [message.usage.input_tokens, message.usage.output_tokens],
  };
}

try {
  console.log(JSON.stringify(await (sdk === "openai" ? openai() : anthropic())));
} catch (error) {
  if (error.status === undefined) throw error;
  console.log(JSON.stringify({ kind: error.constructor.name, status: error.status, message: error.message }));
}
