// An SFTP server on npm's ssh2 over a directory: PORT ROOT HOST_KEY AUTHORIZED_KEYS [naive].
// ssh2 leaves every operation to its user; these are the ones that most such servers have,
// straight onto node's fs. "naive": the npm package ssh2-sftp-server's habits: no SETSTAT,
// no link and no extension, status codes chosen by guess.
'use strict';

const fs = require('fs');
const path = require('path');
const { Server, utils } = require('ssh2');

const { STATUS_CODE, OPEN_MODE } = utils.sftp;
const [port, root, hostKey, authorized] = process.argv.slice(2, 6);
const naive = process.argv[6] === 'naive';
const allowed = fs.readFileSync(authorized, 'utf8').split('\n').filter((line) => line.trim())
  .map((line) => utils.parseKey(line).getPublicSSH());

const local = (name) => path.join(root, path.posix.resolve('/', name));
const code = (error) => {
  if (error.code === 'ENOENT') return STATUS_CODE.NO_SUCH_FILE;
  if (error.code === 'EACCES' || error.code === 'EPERM') return STATUS_CODE.PERMISSION_DENIED;
  return STATUS_CODE.FAILURE;
};
const attributes = (stat) => ({
  mode: stat.mode, uid: stat.uid, gid: stat.gid, size: stat.size,
  atime: Math.floor(stat.atimeMs / 1000), mtime: Math.floor(stat.mtimeMs / 1000),
});
const flagsOf = (flags) => {
  const both = OPEN_MODE.READ | OPEN_MODE.WRITE;
  let how = (flags & both) === both ? fs.constants.O_RDWR
    : flags & OPEN_MODE.WRITE ? fs.constants.O_WRONLY : fs.constants.O_RDONLY;
  if (flags & OPEN_MODE.APPEND) how |= fs.constants.O_APPEND;
  if (flags & OPEN_MODE.CREAT) how |= fs.constants.O_CREAT;
  if (flags & OPEN_MODE.TRUNC) how |= fs.constants.O_TRUNC;
  if (flags & OPEN_MODE.EXCL) how |= fs.constants.O_EXCL;
  return how;
};

function serve(sftp) {
  const handles = new Map();
  let last = 0;
  const remember = (entry) => {
    const handle = Buffer.alloc(4);
    handle.writeUInt32BE(++last, 0);
    handles.set(last, entry);
    return handle;
  };
  const of = (handle) => handles.get(handle.readUInt32BE(0));
  const on = (request, act) => sftp.on(request, (id, ...rest) => {
    try {
      act(id, ...rest);
    } catch (error) {
      sftp.status(id, code(error));
    }
  });
  const ok = (id) => sftp.status(id, STATUS_CODE.OK);
  const set = (id, name, wanted) => {
    if (wanted.mode !== undefined) fs.chmodSync(name, wanted.mode & 0o7777);
    if (wanted.mtime !== undefined) fs.utimesSync(name, wanted.atime, wanted.mtime);
    if (wanted.size !== undefined) fs.truncateSync(name, wanted.size);
    ok(id);
  };

  on('OPEN', (id, name, flags, wanted) => {
    const file = fs.openSync(local(name), flagsOf(flags), wanted.mode === undefined ? 0o666 : wanted.mode);
    sftp.handle(id, remember({ file, name }));
  });
  on('READ', (id, handle, offset, length) => {
    const data = Buffer.alloc(Math.min(length, 1 << 18));
    const read = fs.readSync(of(handle).file, data, 0, data.length, offset);
    if (read === 0) return sftp.status(id, STATUS_CODE.EOF);
    return sftp.data(id, data.subarray(0, read));
  });
  on('WRITE', (id, handle, offset, data) => {
    fs.writeSync(of(handle).file, data, 0, data.length, offset);
    ok(id);
  });
  on('CLOSE', (id, handle) => {
    const entry = of(handle);
    handles.delete(handle.readUInt32BE(0));
    if (entry.file !== undefined) fs.closeSync(entry.file);
    ok(id);
  });
  on('FSTAT', (id, handle) => sftp.attrs(id, attributes(fs.fstatSync(of(handle).file))));
  on('STAT', (id, name) => sftp.attrs(id, attributes(fs.statSync(local(name)))));
  on('LSTAT', (id, name) => sftp.attrs(id, attributes(fs.lstatSync(local(name)))));
  on('OPENDIR', (id, name) => {
    const names = fs.readdirSync(local(name));
    sftp.handle(id, remember({ names, name }));
  });
  on('READDIR', (id, handle) => {
    const entry = of(handle);
    if (!entry.names || entry.names.length === 0) return sftp.status(id, STATUS_CODE.EOF);
    const names = entry.names.splice(0, 100).map((filename) => {
      const attrs = attributes(fs.lstatSync(path.join(local(entry.name), filename)));
      return { filename, longname: filename, attrs };
    });
    return sftp.name(id, names);
  });
  on('REALPATH', (id, name) => sftp.name(id, [{ filename: path.posix.resolve('/', name) }]));
  on('REMOVE', (id, name) => { fs.unlinkSync(local(name)); ok(id); });
  on('MKDIR', (id, name) => { fs.mkdirSync(local(name)); ok(id); });
  on('RMDIR', (id, name) => { fs.rmdirSync(local(name)); ok(id); });
  on('RENAME', (id, from, to) => { fs.renameSync(local(from), local(to)); ok(id); });
  if (naive) return;
  on('SETSTAT', (id, name, wanted) => set(id, local(name), wanted));
  on('FSETSTAT', (id, handle, wanted) => set(id, local(of(handle).name), wanted));
  on('READLINK', (id, name) => sftp.name(id, [{ filename: fs.readlinkSync(local(name)) }]));
}

new Server({ hostKeys: [fs.readFileSync(hostKey)] }, (client) => {
  client.on('error', () => {});
  client.on('authentication', (login) => {
    if (login.method !== 'publickey') return login.reject(['publickey']);
    if (!allowed.some((key) => key.equals(login.key.data))) return login.reject(['publickey']);
    if (login.signature) {
      const key = utils.parseKey(`${login.key.algo} ${login.key.data.toString('base64')}`);
      if (!key.verify(login.blob, login.signature, login.hashAlgo)) return login.reject();
    }
    return login.accept();
  });
  client.on('ready', () => {
    client.on('session', (accept) => {
      const session = accept();
      session.on('sftp', (take) => serve(take()));
    });
  });
}).listen(Number(port), '127.0.0.1');
