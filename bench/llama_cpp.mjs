// Read {library, model, texts, prompts, limit} as JSON from standard input, and write what llama.cpp makes of them:
// {release, texts: token ids of each text, answers: [{ids: of the prompt, written, text, ended}]}. Called by llama_cpp.py.
import { readFileSync } from "node:fs";

const request = JSON.parse(readFileSync(0, "utf8"));
const { getLlama } = await import(request.library);
const llama = await getLlama({ gpu: false, build: "never", logger: (level, message) => console.error(message) });
const model = await llama.loadModel({ modelPath: request.model });
const context = await model.createContext({ contextSize: Math.min(1024, model.trainContextSize), threads: 1 });
const sequence = context.getSequence();

async function answer(prompt) {
  const ids = model.tokenize(prompt, true);
  const written = [];
  await sequence.clearHistory();
  let ended = true; // the library stops at a token that ends an answer, and leaves it out
  for await (const token of sequence.evaluate(ids, { temperature: 0 })) {
    written.push(token);
    if (written.length >= request.limit) {
      ended = false;
      break;
    }
  }
  return { ids: [...ids], written, text: model.detokenize(written), ended };
}

const answers = [];
for (const prompt of request.prompts) answers.push(await answer(prompt));
const result = { release: llama.llamaCppRelease, texts: request.texts.map((text) => [...model.tokenize(text, true)]), answers };
process.stdout.write(JSON.stringify(result), () => process.exit(0));
