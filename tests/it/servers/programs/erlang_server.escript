#!/usr/bin/env escript
%% Erlang/OTP's SFTP server: PORT ROOT SYSTEM_DIRECTORY USER_DIRECTORY.
%% SYSTEM_DIRECTORY has the host key as ssh_host_ed25519_key; USER_DIRECTORY authorized_keys.
main([Port, Root, System, User]) ->
    {ok, _} = application:ensure_all_started(ssh),
    {ok, _} = ssh:daemon({127, 0, 0, 1}, list_to_integer(Port), [
        {system_dir, System},
        {user_dir, User},
        {auth_methods, "publickey"},
        {subsystems, [ssh_sftpd:subsystem_spec([{root, Root}, {cwd, "/"}])]}
    ]),
    receive stop -> ok end.
