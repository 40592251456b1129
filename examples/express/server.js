// npm install; tmpguard run --storage-size 1 -- node server.js
"use strict";
const express = require("express");
const { write, ...others } = require("./actions");

const app = express();
app.set("query parser", "simple");
const send = (response, text) => response.type("text/plain").send(text);
app.get("/write", (request, response) => send(response, write(request.query.text)));
for (const [name, action] of Object.entries(others)) {
  app.get(`/${name}`, (request, response) => send(response, action()));
}
app.use((error, request, response, next) => {
  response.status(500);
  send(response, `${error.message}\n`);
});
app.listen(Number(process.env.PORT || 3000), "127.0.0.1");
