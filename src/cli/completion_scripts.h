#pragma once
/* The parts of the completion scripts that are the same whatever the commands are. */

extern const char bash_tail[], zsh_tail[], fish_head[];
