#!/usr/bin/python
# The documentation of haul_put. All of the work is in the action plugin of the same name,
# on the controller: no module is ever sent to the target.

from __future__ import annotations

DOCUMENTATION = r"""
module: haul_put
short_description: Upload a big file over SSH, resumable, verified and put in place atomically
version_added: "0.1.0"
description:
  - Runs C(haul put) on the controller. It cuts the file into chunks, sends over SFTP only those that the target
    does not have yet, compares the SHA-256 of the result with that of the source, and puts the file in place
    by one atomic rename. An upload that was cut off goes on when the task runs again.
  - Reaches the target as the connection plugin P(ansible.builtin.ssh#connection) is configured to, with its
    variables. The target needs an SSH server with SFTP, and no Python.
  - Parameters are named as M(ansible.builtin.copy) names them where it has them. What haul does not do is refused
    before anything is done, and never ignored.
options:
  src:
    description:
      - Local path of the file. A relative one is looked for as M(ansible.builtin.copy) does, in C(files/) of the
        role and beside the playbook.
      - A symbolic link is followed. A directory is refused.
    type: str
    required: true
  dest:
    description:
      - Path on the target. One that ends in C(/) or is a directory takes the name of O(src). The directory has to
        exist.
      - A relative path, and C(~/), start at the home of the user who writes, which with C(become) is the become user.
      - A symbolic link is followed, and what it points to is replaced.
    type: str
    required: true
  mode:
    description:
      - Permissions of the file, octal in quotes (V('0644')), V(preserve) for those of O(src), or symbolic for user,
        group and others with C(=) (V(u=rw,g=r,o=r)). Other symbolic modes are refused.
      - Without it a new file gets the permissions of O(src) under the umask of the target, and a replaced one keeps its own.
    type: raw
  owner:
    description:
      - User, by name or number, who is to own the file. Names are looked up on the target, which needs a shell for that.
      - Without it a replaced file keeps its owner where the account may set it; where it may not there is a warning.
    type: str
  group:
    description: Group, by name or number, as O(owner).
    type: str
  checksum:
    description:
      - SHA-256 that O(src) has to have. It is computed before anything is sent.
      - M(ansible.builtin.copy) takes a SHA-1 here; that is refused.
    type: str
  force:
    description:
      - With V(false) a file that is there with other content is left alone, with its mode and owner, and the task is not changed.
      - The default is V(true), to replace it. Excludes O(if_exists).
    type: bool
  if_exists:
    description:
      - What to do when other content is at the target. V(replace) is the default, V(skip) is O(force=false),
        V(fail) fails.
    type: str
    choices: [replace, skip, fail]
  verify:
    description: How the result is verified, as C(haul put --verify).
    type: str
    choices: [sha256, fast, size]
    default: sha256
  merge:
    description: How chunks become the file, as C(haul put --merge).
    type: str
    choices: [auto, script, sftp]
    default: auto
  chunk_size:
    description: Size of a chunk, such as V(10MiB). A resume keeps that of the first run.
    type: str
  connections:
    description: Connections at once, V(auto) or a number.
    type: str
  bwlimit:
    description: Bytes a second for this host, such as V(20MB).
    type: str
  compress:
    description: Compress what goes over the connection. The C(-C) in the default of C(ansible_ssh_args) does not count.
    type: bool
    default: false
  quick:
    description: Take size and modification time for proof that nothing changed. Then no checksum is returned.
    type: bool
    default: false
  rehash:
    description: Read all of O(src) again on a resume.
    type: bool
    default: false
  user_id:
    description: Whose upload this is, part of the names of the temporary files on the target. Default is the local login name.
    type: str
  wait:
    description:
      - Whether to wait for another run that works on the same target. V(true) waits as long as it takes, V(5m) at most
        five minutes, a number that many seconds. By default the task fails.
    type: raw
  break_lock:
    description: Take the lock of another run, also of a living one.
    type: bool
    default: false
  no_lock:
    description: Go on without a lock where the server can make none.
    type: bool
    default: false
  retries:
    description: How often a lost link is made again in a row without progress. haul's default is 5.
    type: int
  stall_timeout:
    description: How long a link may be silent, such as V(30s), which is haul's default.
    type: str
  non_atomic_replace:
    description: Replace by remove and rename where the server has no atomic way.
    type: bool
    default: false
  haul_binary:
    description: The program haul on the controller. A name without C(/) is looked for in PATH.
    type: path
    default: haul
  backup:
    description: Of M(ansible.builtin.copy), not supported. V(true) is refused.
    type: bool
    default: false
  remote_src:
    description: Of M(ansible.builtin.copy), not supported. V(true) is refused.
    type: bool
    default: false
  follow:
    description: haul follows a symbolic link at O(dest). V(false), the default of M(ansible.builtin.copy), is refused when it is given.
    type: bool
    default: true
  local_follow:
    description: haul follows a symbolic link at O(src). V(false) is refused.
    type: bool
    default: true
  decrypt:
    description: A file that is encrypted with Ansible Vault is refused, unless this is V(false). Then it is sent as it is.
    type: bool
    default: true
  unsafe_writes:
    description: Of M(ansible.builtin.copy), not supported. V(true) is refused.
    type: bool
    default: false
  content:
    description: Of M(ansible.builtin.copy), not supported, refused when given.
    type: raw
  validate:
    description: Of M(ansible.builtin.copy), not supported, refused when given.
    type: str
  directory_mode:
    description: Of M(ansible.builtin.copy), not supported, refused when given.
    type: raw
  attributes:
    description: Of M(ansible.builtin.copy), not supported, refused when given.
    type: str
    aliases: [attr]
  seuser:
    description: Of M(ansible.builtin.copy), not supported, refused when given.
    type: str
  serole:
    description: Of M(ansible.builtin.copy), not supported, refused when given.
    type: str
  setype:
    description: Of M(ansible.builtin.copy), not supported, refused when given.
    type: str
  selevel:
    description: Of M(ansible.builtin.copy), not supported, refused when given.
    type: str
attributes:
  action:
    description: All of the work is done by an action plugin on the controller.
    support: full
  async:
    description: Supports being used with the C(async) keyword.
    support: none
  become:
    description: Is usable alongside become keywords.
    support: partial
    details:
      - C(sudo) without a password (C(NOPASSWD)), to any user. Everything is then done as that user, the temporary
        files and the lock too. Another method, a password, and other flags than C(-H -S -n) are refused.
  check_mode:
    description: Says what would change and writes nothing on the target, no lock either.
    support: full
  connection:
    description: Uses the variables of the connection.
    support: partial
    details:
      - P(ansible.builtin.ssh#connection) alone. haul logs in by itself, with C(ansible_host), C(ansible_port), C(ansible_user),
        C(ansible_ssh_private_key_file), C(ansible_password), C(ansible_ssh_common_args), C(ansible_ssh_extra_args),
        C(ansible_sftp_extra_args), C(ansible_ssh_args) where it is set, C(ansible_ssh_timeout) and C(ansible_host_key_checking).
      - With C(ansible_host_key_checking=false) haul takes the key of a new host and writes it down. A key that contradicts
        what is known is refused all the same.
  delegation:
    description: Can be used with delegate_to.
    support: full
  diff_mode:
    description: Shows size, SHA-256, mode, uid and gid before and after. The file that is replaced is hashed for it.
    support: full
  platform:
    description: Target systems.
    platforms: posix
    support: full
notes:
  - The program haul has to be on the controller.
  - With C(-vv) the phases and the progress are shown.
  - Only one run at a time works on one target. The lock of a dead run is taken over.
seealso:
  - module: ansible.builtin.copy
author:
  - The haul authors (@haul)
"""

EXAMPLES = r"""
- name: Upload a disk image, resumable and verified
  haul.haul.haul_put:
    src: disk.img
    dest: /srv/images/disk.img
    mode: "0644"

- name: As root, and only what was released
  haul.haul.haul_put:
    src: release/model.bin
    dest: /opt/models/
    owner: model
    group: model
    mode: u=rw,g=r,o=
    checksum: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
  become: true

- name: Slowly, and waiting for whoever uploads there now
  haul.haul.haul_put:
    src: backup.tar
    dest: ~/backup.tar
    bwlimit: 5MB
    wait: 30m
    if_exists: fail
"""

RETURN = r"""
dest:
  description: Path of the file on the target, symbolic links followed.
  returned: success
  type: str
  sample: /srv/images/disk.img
src:
  description: Path of the source on the controller.
  returned: success
  type: str
  sample: /home/ops/site/files/disk.img
checksum:
  description:
    - SHA-256 of the file. M(ansible.builtin.copy) returns a SHA-1 by this name. In check mode that of the source.
    - Null where the content was not looked at (O(quick)) or left alone (skipped).
  returned: success
  type: str
  sample: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
sha256:
  description: The same as RV(checksum), by its name.
  returned: success
  type: str
  sample: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
checksum_algorithm:
  description: What RV(checksum) is.
  returned: success
  type: str
  sample: sha256
size:
  description: Bytes of the source.
  returned: success
  type: int
  sample: 60000002
mode:
  description: Permissions of the file at the target, null where they are not known (of a new file in check mode).
  returned: success
  type: str
  sample: "0644"
uid:
  description: Owner of the file at the target.
  returned: success
  type: int
  sample: 0
gid:
  description: Group of the file at the target.
  returned: success
  type: int
  sample: 0
owner:
  description: Owner by name.
  returned: success, when the task gave a name
  type: str
  sample: model
group:
  description: Group by name.
  returned: success, when the task gave a name
  type: str
  sample: model
state:
  description: Always V(file).
  returned: success
  type: str
  sample: file
status:
  description:
    - V(uploaded), V(unchanged), V(skipped), or in check mode V(would-upload). A file whose content was the same and whose mode
      or owner was set is V(unchanged), and the task is changed.
  returned: success
  type: str
  sample: uploaded
verified_by:
  description: How the content was verified, V(sha256-target), V(sha256-readback), V(size) or another that haul names.
  returned: success
  type: str
  sample: sha256-target
merge:
  description: How chunks became the file, V(placed), V(script) or V(sftp).
  returned: success
  type: str
  sample: placed
chunks_total:
  description: Chunks of the file.
  returned: success
  type: int
  sample: 6
chunks_sent:
  description: Chunks that were sent.
  returned: success
  type: int
  sample: 4
chunks_skipped:
  description: Chunks that were there from an earlier run.
  returned: success
  type: int
  sample: 2
bytes_sent:
  description: Bytes that were sent, repeats included.
  returned: success
  type: int
  sample: 40000000
resumed:
  description: Whether this run went on with an earlier one.
  returned: success
  type: bool
  sample: true
seconds:
  description: Time by phase.
  returned: success
  type: dict
  sample: {"upload": 1.7, "verify": 0.7}
exit_code:
  description: haul's exit code. 4 is a target that was not to be replaced, 10 no way in, 11 a lock, 12 a failed verification,
    13 no space or no permission on the target.
  returned: failure of haul
  type: int
  sample: 11
phase:
  description: Where in its work haul failed.
  returned: failure of haul
  type: str
  sample: lock
"""
