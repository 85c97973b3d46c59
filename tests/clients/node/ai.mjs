import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateObject, generateText, Output, stepCountIs, streamText, tool } from "ai";

import { serve } from "./harness.mjs";
import { City, forecasts, Weather } from "./schemas.mjs";

const models = {
  openai: ({ model, ...options }) => createOpenAI(options).chat(model),
  "openai-default": ({ model, ...options }) => createOpenAI(options)(model),
  "openai-responses": ({ model, ...options }) => createOpenAI(options).responses(model),
  "openai-compatible": ({ model, ...options }) =>
    createOpenAICompatible({
      ...options,
      name: "gateway",
      includeUsage: true,
      supportsStructuredOutputs: true,
    }).chatModel(model),
};

const embeddingModels = {
  openai: ({ model, ...options }) => createOpenAI(options).embeddingModel(model),
  "openai-compatible": ({ model, ...options }) =>
    createOpenAICompatible({ ...options, name: "gateway" }).embeddingModel(model),
};

function asked({ provider, providerOptions, ...options }) {
  const model = models[provider](options);
  return { model, prompt: "Say hello.", maxRetries: 0, providerOptions };
}

function withTools(options) {
  const get_weather = tool({
    description: "Get the weather.",
    inputSchema: Weather,
    execute: ({ place }) => forecasts[place.city],
  });
  return { ...asked(options), tools: { get_weather }, stopWhen: stepCountIs(3) };
}

function withSchema(options) {
  return { ...asked(options), output: Output.object({ schema: City }) };
}

async function generate(seen, options) {
  const { text, reasoningText, steps, usage, warnings } = await generateText(options);
  Object.assign(seen, { text, reasoning: reasoningText, usage, warnings });
  seen.steps = steps.map((step) => step.finishReason);
}

async function stream(seen, options) {
  seen.deltas = [];
  seen.steps = [];
  const result = await streamed(options, async ({ fullStream }) => {
    for await (const part of fullStream) {
      if (part.type === "text-delta") seen.deltas.push(part.text);
      if (part.type === "finish-step") seen.steps.push(part.finishReason);
    }
  });
  seen.text = await result.text;
  seen.reasoning = await result.reasoningText;
  seen.usage = await result.usage;
  seen.warnings = await result.warnings;
}

// Errors do not come out of the streams of ai.
async function streamed(options, read) {
  let failure;
  const result = streamText({ ...options, onError: ({ error }) => (failure = error) });
  await read(result);
  if (failure) throw failure;
  return result;
}

await serve({
  async chat(options, seen) {
    await generate(seen, { ...asked(options), temperature: 0.5 });
  },

  async stream(options, seen) {
    await stream(seen, asked(options));
  },

  async tools(options, seen) {
    await generate(seen, withTools(options));
  },

  async toolsStream(options, seen) {
    await stream(seen, withTools(options));
  },

  // A conversation of several turns, with the provider's own model.
  async turns({ prompts, streams, ...options }, seen) {
    const { prompt, ...asking } = withTools({ ...options, provider: "openai-default" });
    const messages = [];
    seen.texts = [];
    seen.reasoning = [];
    for (const content of prompts) {
      messages.push({ role: "user", content });
      const result = streams
        ? await streamed({ ...asking, messages }, (result) => result.consumeStream())
        : await generateText({ ...asking, messages });
      messages.push(...(await result.response).messages);
      seen.texts.push(await result.text);
      seen.reasoning.push(await result.reasoningText);
    }
  },

  async requiredTool(options, seen) {
    const { toolCalls } = await generateText({
      ...withTools(options),
      toolChoice: "required",
      stopWhen: stepCountIs(1),
    });
    seen.inputs = toolCalls.map(({ input }) => input);
  },

  async embeddings({ provider, ...options }, seen) {
    const values = ["hello", "big world"];
    const { embeddings, usage } = await embedMany({
      model: embeddingModels[provider](options),
      values,
      maxRetries: 0,
    });
    Object.assign(seen, { embeddings, usage });
  },

  async object(options, seen) {
    const { object, warnings } = await generateObject({ ...asked(options), schema: City });
    Object.assign(seen, { output: object, warnings });
  },

  async structured(options, seen) {
    const { output, warnings } = await generateText(withSchema(options));
    Object.assign(seen, { output, warnings });
  },

  async structuredStream(options, seen) {
    seen.partial = [];
    const result = await streamed(withSchema(options), async ({ partialOutputStream }) => {
      for await (const partial of partialOutputStream) seen.partial.push(partial);
    });
    seen.output = await result.output;
    seen.warnings = await result.warnings;
  },
});
