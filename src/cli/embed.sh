#!/bin/sh
# Build-time: the fixed parts of the completion scripts as C strings.
#     embed.sh BASH ZSH FISH >completion_scripts.c
echo '#include "cli/completion_scripts.h"'
for one in "bash_tail $1" "zsh_tail $2" "fish_head $3"; do
	set -- $one
	echo "const char $1[] ="
	sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/"/' -e 's/$/\\n"/' "$2"
	echo ';'
done
