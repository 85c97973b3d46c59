import OpenAI from "openai";
import {
  zodFunction,
  zodResponseFormat,
  zodResponsesFunction,
  zodTextFormat,
} from "openai/helpers/zod";

import { serve } from "./harness.mjs";
import { City, forecasts, Weather } from "./schemas.mjs";

const messages = [{ role: "user", content: "Say hello." }];

function completions(options) {
  return client(options).chat.completions;
}

function client({ baseURL, apiKey, fetch }) {
  return new OpenAI({ baseURL, apiKey, fetch, maxRetries: 0, timeout: 20_000 });
}

function weatherTool() {
  return zodFunction({
    name: "get_weather",
    description: "Get the weather.",
    parameters: Weather,
    function: ({ place }) => forecasts[place.city],
  });
}

await serve({
  async models(options, seen) {
    seen.models = [];
    for await (const { id } of client(options).models.list()) seen.models.push(id);
    seen.model = await client(options).models.retrieve(options.model);
  },

  async chat({ model, ...options }, seen) {
    const { data, request_id } = await completions(options)
      .create({ model, messages, temperature: 0.5 })
      .withResponse();
    seen.completion = data;
    seen.requestId = request_id;
  },

  async stream({ model, ...options }, seen) {
    seen.chunks = [];
    const stream = await completions(options).create({ model, messages, stream: true });
    for await (const chunk of stream) seen.chunks.push(chunk);
  },

  async streamHelper({ model, ...options }, seen) {
    seen.content = "";
    const stream = completions(options).stream({ model, messages });
    stream.on("content", (delta) => (seen.content += delta));
    seen.completion = await stream.finalChatCompletion();
  },

  async tools({ model, stream, ...options }, seen) {
    const runner = completions(options).runTools({ model, messages, stream, tools: [weatherTool()] });
    seen.content = await runner.finalContent();
    seen.messages = runner.messages;
  },

  async structured({ model, ...options }, seen) {
    const response_format = zodResponseFormat(City, "city");
    const completion = await completions(options).parse({ model, messages, response_format });
    seen.parsed = completion.choices[0].message.parsed;
  },

  async structuredStream({ model, ...options }, seen) {
    const response_format = zodResponseFormat(City, "city");
    const stream = completions(options).stream({ model, messages, response_format });
    seen.parsed = (await stream.finalMessage()).parsed;
  },

  async requiredTool({ model, stream, ...options }, seen) {
    const body = { model, messages, tools: [weatherTool()], tool_choice: "required" };
    seen.completion = stream
      ? await completions(options).stream(body).finalChatCompletion()
      : await completions(options).parse(body);
  },

  async response({ model, ...options }, seen) {
    const body = { model, instructions: "Be brief.", input: "Say hello.", temperature: 0.5 };
    seen.response = await client(options).responses.create(body);
  },

  async responseStream({ model, ...options }, seen) {
    seen.events = [];
    const stream = client(options).responses.stream({ model, input: messages });
    for await (const event of stream) seen.events.push(event);
    seen.response = await stream.finalResponse();
  },

  async responseTools({ model, ...options }, seen) {
    const tools = [zodResponsesFunction({ name: "get_weather", parameters: Weather })];
    const input = [...messages];
    const first = await client(options).responses.parse({ model, input, tools });
    seen.calls = first.output;
    input.push(...first.output);
    for (const { call_id, parsed_arguments } of first.output) {
      const output = forecasts[parsed_arguments.place.city];
      input.push({ type: "function_call_output", call_id, output });
    }
    seen.response = await client(options).responses.parse({ model, input, tools });
  },

  async responseStructured({ model, ...options }, seen) {
    const text = { format: zodTextFormat(City, "city") };
    const response = await client(options).responses.parse({ model, input: messages, text });
    seen.parsed = response.output_parsed;
  },

  async embeddings({ model, ...options }, seen) {
    const input = ["hello", "big world"];
    seen.packed = await client(options).embeddings.create({ model, input });
    seen.short = await client(options).embeddings.create({ model, input, dimensions: 8 });
  },

  async textCompletions({ model, ...options }, seen) {
    const body = { model, prompt: "Once", n: 2 };
    seen.completion = await client(options).completions.create(body);
    seen.chunks = [];
    const stream = await client(options).completions.create({ ...body, stream: true });
    for await (const chunk of stream) seen.chunks.push(chunk);
  },
});
