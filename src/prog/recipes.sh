#!/bin/sh
# Assembler text that puts each given file, byte for byte, between recipe_NAME and recipe_NAME_end. The sum makes the text
# change with the file, so that it is assembled again.
echo '.section .rodata'
for file; do
	name=$(basename "$file")
	echo "# $(sha256sum <"$file")"
	printf '.global recipe_%s, recipe_%s_end\nrecipe_%s:\n.incbin "%s"\nrecipe_%s_end:\n.byte 0\n' \
		"$name" "$name" "$name" "$(realpath "$file")" "$name"
done
echo '.section .note.GNU-stack,"",@progbits'
