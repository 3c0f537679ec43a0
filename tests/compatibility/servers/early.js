// Answers 400 to /early before the body has arrived, and 200 to all else at its end. Usage: early.js PORT.
require("http")
  .createServer((request, response) => {
    if (request.url === "/early") return response.writeHead(400, { "content-length": 5 }).end("early");
    request.resume();
    request.on("end", () => response.writeHead(200, { "content-length": 2 }).end("ok"));
  })
  .listen(Number(process.argv[2]), "127.0.0.1");
