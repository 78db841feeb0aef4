--- A directory of certificates that the openssl program makes, for tests and the tools that they start.

local uv = require 'luv'

local Pki = {}
Pki.__index = Pki

local function read(path)
  local file = assert(io.open(path))
  local text = file:read '*a'
  file:close()
  return text
end

--- A new directory; remove() takes it away with all that is in it.
local function new()
  local directory = assert(uv.fs_mkdtemp((os.getenv 'TMPDIR' or '/tmp') .. '/dtls-spec-XXXXXX'))
  return setmetatable({ directory = directory }, Pki)
end

function Pki:path(name)
  return self.directory .. '/' .. name
end

-- Runs openssl to its end, in the directory. Returns what it printed.
local function openssl(self, arguments, ...)
  local command = ("cd '%s' && env -u LD_PRELOAD openssl %s >log 2>&1 </dev/null"):format(self.directory, arguments:format(...))
  local status = os.execute(command)
  local log = read(self:path 'log')
  if status ~= 0 and status ~= true then error(command .. ':\n' .. log, 3) end
  return log
end

--- Writes a file that only its owner can read. Returns its path.
function Pki:write(name, text)
  local path = self:path(name)
  local file = assert(uv.fs_open(path, 'w', 384)) -- 0600
  assert(uv.fs_write(file, text, 0))
  assert(uv.fs_close(file))
  return path
end

--- A certificate and its key as files: {cert=, key=} are paths, {pem={cert=, key=}, fingerprint=} the texts.
---@param name string of the files
---@param options? {type?: 'ec'|'rsa', commonName?: string, altNames?: string[], authority?: boolean, issuer?: table}
---   issuer: what this gave before; without one the certificate signs itself
function Pki:certificate(name, options)
  options = options or {}
  local ca = options.authority
  local algorithm = options.type == 'rsa' and 'rsa:2048' or 'ec -pkeyopt ec_paramgen_curve:P-256'
  local names = {}
  for i, each in ipairs(options.altNames or { 'localhost' }) do names[i] = 'DNS:' .. each end
  self:write(name .. '.cnf', table.concat({
    '[req]', 'distinguished_name = dn', '[dn]', '[extensions]',
    'basicConstraints = critical, CA:' .. (ca and 'TRUE' or 'FALSE'),
    'keyUsage = critical, ' .. (ca and 'keyCertSign, cRLSign, digitalSignature' or 'digitalSignature'),
    'subjectKeyIdentifier = hash',
    options.issuer and 'authorityKeyIdentifier = keyid' or '',
    'subjectAltName = ' .. table.concat(names, ', '),
  }, '\n') .. '\n')
  local what = ('-newkey %s -nodes -keyout %s.key -config %s.cnf -subj "/CN=%s"')
    :format(algorithm, name, name, options.commonName or name)
  if options.issuer then
    openssl(self, 'req -new %s -out %s.csr', what, name)
    local from = ('-CA %s -CAkey %s -CAcreateserial'):format(options.issuer.cert, options.issuer.key)
    openssl(self, 'x509 -req -in %s.csr %s -days 7 -sha256 -extfile %s.cnf -extensions extensions -out %s.crt', name, from, name, name)
  else
    openssl(self, 'req -x509 %s -days 7 -extensions extensions -out %s.crt', what, name)
  end
  return self:_entry(name, openssl(self, 'x509 -in %s.crt -noout -fingerprint -sha256', name):match '=([%x:]+)')
end

function Pki:_entry(name, fingerprint)
  local cert, key = self:path(name .. '.crt'), self:path(name .. '.key')
  return { cert = cert, key = key, fingerprint = fingerprint, pem = { cert = read(cert), key = read(key) } }
end

--- A pair of PEM texts (dtls.selfSigned's) as such files.
function Pki:store(name, pair)
  self:write(name .. '.crt', pair.cert)
  self:write(name .. '.key', pair.key)
  return self:_entry(name, pair.fingerprint)
end

function Pki:remove()
  local scan = assert(uv.fs_scandir(self.directory))
  for name in function() return uv.fs_scandir_next(scan) end do assert(uv.fs_unlink(self:path(name))) end
  assert(uv.fs_rmdir(self.directory))
end

return { new = new }
