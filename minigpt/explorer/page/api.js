// The source of all numbers: the server that `minigpt explore` started. Another source needs the same two functions.

/** Returns the answer to a request, as plain values. Throws an Error with the server's words, or an AbortError. */
export async function ask(name, request, signal) {
  return (await send(name, request, signal)).json();
}

/** Returns an answer that is a tensor: its shape and its numbers, float32. */
export async function askTensor(name, request, signal) {
  const response = await send(name, request, signal);
  const shape = response.headers.get("X-Shape").split(",").map(Number);
  return { shape, numbers: new Float32Array(await response.arrayBuffer()) };
}

async function send(name, request, signal) {
  let response;
  try {
    response = await fetch(`api/${name}`, { method: "POST", body: JSON.stringify(request), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error(
      "The server does not answer. Is `minigpt explore` still running? Start it again, and open the address that it prints.",
    );
  }
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({ error: `The server answered with status ${response.status}.` }));
  throw new Error(answer.error);
}
