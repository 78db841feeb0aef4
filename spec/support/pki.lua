--- A directory of certificates that the openssl program makes, for tests and the tools that they start.

local uv = require 'luv'
local contents = require 'spec.support.contents'

local Pki = {}
Pki.__index = Pki

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
  local log = contents(self:path 'log')
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

-- What openssl calls a kind of key: arguments of genpkey.
local kinds = {
  ec = '-algorithm EC -pkeyopt ec_paramgen_curve:P-256',
  rsa = '-algorithm RSA -pkeyopt rsa_keygen_bits:2048',
  ['rsa-1024'] = '-algorithm RSA -pkeyopt rsa_keygen_bits:1024',
  ['rsa-pss'] = '-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048',
  ed25519 = '-algorithm ED25519',
  ed448 = '-algorithm ED448',
}

-- The lines of a section with a certificate's alternative names, addresses among them.
local function alternatives(names)
  local lines = {}
  for i, name in ipairs(names) do
    local kind = (name:find '^[%d.]+$' or name:find '^[%x:.]*:[%x:.]*$') and 'IP' or 'DNS'
    lines[i] = ('%s.%d = %s'):format(kind, i, (name:gsub('["\'\\$#]', '\\%0')))
  end
  return table.concat(lines, '\n')
end

local function configure(self, name, options)
  local ca, names = options.authority, options.altNames or { 'localhost' }
  self:write(name .. '.cnf', table.concat({
    'oid_section = oids', '[oids]', 'own = 1.2.3.4', '[req]', 'distinguished_name = dn', '[dn]', '[extensions]',
    'basicConstraints = critical, CA:' .. (ca and 'TRUE' or 'FALSE'),
    'keyUsage = critical, ' .. (ca and 'keyCertSign, cRLSign, digitalSignature' or 'digitalSignature'),
    'subjectKeyIdentifier = hash',
    options.issuer and 'authorityKeyIdentifier = keyid' or '',
    options.purposes and 'extendedKeyUsage = ' .. options.purposes or '',
    options.altDer and 'subjectAltName = DER:' .. options.altDer or #names > 0 and 'subjectAltName = @names' or '',
    '[names]', alternatives(names),
    '[ca]', 'default_ca = issuer',
    '[issuer]', 'database = ' .. name .. '.index', 'new_certs_dir = .', 'rand_serial = yes', 'default_md = default', 'policy = policy',
    '[policy]', 'commonName = supplied',
  }, '\n') .. '\n')
end

--- A certificate and its key as files: {cert=, key=} are paths, {pem={cert=, key=}, fingerprint=} the texts.
---@param name string of the files
---@param options? {type?: 'ec'|'rsa'|'rsa-1024'|'rsa-pss'|'ed25519'|'ed448', commonName?: string, subject?: string,
---   altNames?: string[], altDer?: string, purposes?: string, authority?: boolean, issuer?: table, serial?: string,
---   from?: string, to?: string}
---   subject: all of it, '/CN=…/OU=…', where `own` is an attribute that nobody else knows (1.2.3.4); altDer: the
---   alternative names as they are, in hexadecimal; from, to: YYYYMMDDHHMMSSZ (a week from now on); issuer: what this
---   gave before, without one the certificate signs itself
function Pki:certificate(name, options)
  options = options or {}
  configure(self, name, options)
  openssl(self, 'genpkey %s -out %s.key', kinds[options.type or 'ec'], name)
  openssl(self, 'req -new -utf8 -key %s.key -config %s.cnf -subj "%s" -out %s.csr', name, name,
    options.subject or '/CN=' .. (options.commonName or name), name)
  local issuer = options.issuer
  local made = ('-in %s.csr -out %s.crt -extfile %s.cnf -extensions extensions'):format(name, name, name)
  if options.from then
    self:write(name .. '.index', '')
    openssl(self, 'ca -batch -notext -config %s.cnf %s %s -startdate %s -enddate %s', name, made,
      issuer and ('-cert %s -keyfile %s'):format(issuer.cert, issuer.key) or ('-selfsign -keyfile %s.key'):format(name),
      options.from, options.to)
  else
    openssl(self, 'x509 -req -days 7 %s %s %s', made,
      issuer and ('-CA %s -CAkey %s -CAserial %s.srl'):format(issuer.cert, issuer.key, name) or ('-signkey %s.key'):format(name),
      options.serial and '-set_serial ' .. options.serial or issuer and '-CAcreateserial' or '')
  end
  return self:_entry(name, openssl(self, 'x509 -in %s.crt -noout -fingerprint -sha256', name):match '=([%x:]+)')
end

--- A certificate with an RSA key that took no time to make and that signs with no power: the modulus has so many bits and
--- no factors, so that the private exponent is 1 and whoever verifies has all the work. Its own signature is worth nothing.
---@param bits integer of the modulus, a multiple of 8
---@param exponent string in hexadecimal, odd
function Pki:forged(name, bits, exponent)
  local modulus = '0x' .. ('F1'):rep(bits / 8)
  self:write(name .. '.cnf', table.concat({
    'asn1 = SEQUENCE:key', '[key]', 'version = INTEGER:0', 'n = INTEGER:' .. modulus, 'e = INTEGER:0x' .. exponent, 'd = INTEGER:1',
    'p = INTEGER:' .. modulus, 'q = INTEGER:1', 'dp = INTEGER:1', 'dq = INTEGER:1', 'qi = INTEGER:1',
  }, '\n') .. '\n')
  openssl(self, 'asn1parse -noout -genconf %s.cnf -out %s.der', name, name)
  openssl(self, 'rsa -inform DER -in %s.der -out %s.key', name, name)
  configure(self, name, {})
  openssl(self, 'req -x509 -days 7 -key %s.key -config %s.cnf -extensions extensions -subj /CN=%s -out %s.crt', name, name, name, name)
  return self:_entry(name, openssl(self, 'x509 -in %s.crt -noout -fingerprint -sha256', name):match '=([%x:]+)')
end

--- The revocation list of an authority, for a week from now on, or for another time.
---@param name string
---@param issuer table what certificate() gave
---@param revoked table[] the same
---@param options? {from: string, to: string} YYYYMMDDHHMMSSZ
---@return string pem
function Pki:crl(name, issuer, revoked, options)
  configure(self, name, {})
  self:write(name .. '.index', '')
  local authority = ('-config %s.cnf -cert %s -keyfile %s'):format(name, issuer.cert, issuer.key)
  for _, each in ipairs(revoked) do openssl(self, 'ca -batch %s -revoke %s', authority, each.cert) end
  local time = options and ('-crl_lastupdate %s -crl_nextupdate %s'):format(options.from, options.to) or '-crldays 7'
  openssl(self, 'ca %s -gencrl %s -out %s.crl', authority, time, name)
  return contents(self:path(name .. '.crl'))
end

--- The key of a certificate, encrypted, as PKCS #8 or in the form that is older.
---@param form 'traditional'?
---@return string pem
function Pki:encrypt(entry, passphrase, form)
  openssl(self, "pkey -aes256 %s -in %s -passout 'pass:%s' -out encrypted.key", form and '-' .. form or '', entry.key, passphrase)
  return contents(self:path 'encrypted.key')
end

--- The public key of a certificate, as PEM.
---@return string
function Pki:publicKey(entry)
  return openssl(self, 'pkey -in %s -pubout', entry.key)
end

--- The bytes of a certificate.
---@return string
function Pki:der(entry)
  openssl(self, 'x509 -in %s -outform DER -out der', entry.cert)
  return contents(self:path 'der')
end

--- What `openssl x509 -noout` says about a certificate.
function Pki:examine(entry, arguments)
  return openssl(self, 'x509 -noout -in %s %s', entry.cert, arguments)
end

function Pki:_entry(name, fingerprint)
  local cert, key = self:path(name .. '.crt'), self:path(name .. '.key')
  return { cert = cert, key = key, fingerprint = fingerprint, pem = { cert = contents(cert), key = contents(key) } }
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

--- What dtls.selfSigned would give, in milliseconds whatever the type is: under valgrind an RSA key of our own takes half a minute.
---@param options table of certificate()
---@return {cert: string, key: string, fingerprint: string}
local function selfSigned(options)
  local files = new()
  local entry = files:certificate('own', options)
  files:remove()
  return { cert = entry.pem.cert, key = entry.pem.key, fingerprint = entry.fingerprint }
end

return { new = new, selfSigned = selfSigned }
