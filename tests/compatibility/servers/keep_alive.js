// Says `Keep-Alive: timeout=2`, and closes idle connections after that. Usage: keep_alive.js PORT.
const server = require("http").createServer((request, response) => {
  request.resume();
  request.on("end", () => response.end("ok"));
});
server.keepAliveTimeout = 2000;
server.listen(Number(process.argv[2]), "127.0.0.1");
