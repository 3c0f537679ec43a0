// POSTs 40 MB with fetch, as a stream. Usage: fetch_client.js URL. Prints the status, or the error.
const piece = Buffer.alloc(1_000_000, "x");
let left = 40;
const body = new ReadableStream({
  pull(controller) {
    if (left-- > 0) controller.enqueue(piece);
    else controller.close();
  },
});
fetch(process.argv[2], { method: "POST", body, duplex: "half" })
  .then((response) => console.log(response.status))
  .catch((error) => console.log(error.cause?.code ?? error.message));
