// npm install; tmpguard run --storage-size 1 -- node server.js
"use strict";
const fastify = require("fastify");
const { write, ...others } = require("./actions");

const app = fastify();
const send = (reply, text) => reply.type("text/plain").send(text);
app.get("/write", (request, reply) => send(reply, write(request.query.text)));
for (const [name, action] of Object.entries(others)) {
  app.get(`/${name}`, (request, reply) => send(reply, action()));
}
app.setErrorHandler((error, request, reply) => {
  reply.code(500);
  send(reply, `${error.message}\n`);
});
app.listen({ port: Number(process.env.PORT || 3000), host: "127.0.0.1" });
