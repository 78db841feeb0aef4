// node-dtls-client on one end of an association: node-dtls-client.mjs FOLDER client IP PORT psk IDENTITY KEY, where FOLDER
// has its node_modules. peer.h says what such a program does with its standard input and output.
import { pathToFileURL } from 'node:url'
const [folder, , address, port, , identity, key] = process.argv.slice(2)
const { dtls } = await import(pathToFileURL(`${folder}/node-dtls-client/build/dtls.js`))

const socket = dtls.createSocket({ type: 'udp4', address, port: Number(port), psk: { [identity]: key }, timeout: 60000 })
socket.on('connected', () => console.log('connected'))
socket.on('message', (data) => console.log(data.toString()))
socket.on('error', (error) => {
  console.error(error)
  process.exit(1)
})
socket.on('close', () => {
  console.log('closed')
  process.exit(0)
})
process.stdin.on('data', (data) => socket.send(data))
process.stdin.on('end', () => socket.close())
