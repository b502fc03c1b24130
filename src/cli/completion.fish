# fish completion for iron, made from its own tables
function __iron_ask
    IRON_API_TIMEOUT=2 iron $argv -q 2>/dev/null </dev/null
end

# the words so far that are neither options nor, as far as their form tells, options' values
function __iron_tokens
    set -l skip 0
    for t in (commandline -opc)[2..-1]
        if test $skip = 1
            set skip 0
        else if test "$t" = --
            echo --
            return
        else if string match -q -- '-*' $t
            if not string match -q -- '*=*' $t; and contains -- $t $__iron_valued
                set skip 1
            end
        else
            echo -- $t
        end
    end
end

function __iron_words
    set -l t (__iron_tokens)
    test (count $t) -eq $argv[1]
end

function __iron_group
    set -l t (__iron_tokens)
    test (count $t) -eq 1; and test "$t[1]" = $argv[1]
end

function __iron_is
    set -l t (__iron_tokens)
    set -l n (count $argv)
    test (count $t) -ge $n; and test "$t[1..$n]" = "$argv"; and not contains -- -- $t
end

# N COMMAND…: the N-th word after the command is being typed; N+: that, or a later one
function __iron_word
    __iron_is $argv[2..-1]; or return 1
    set -l t (__iron_tokens)
    set -l at (math (count $t) - (count $argv) + 1)
    set -l want (string replace + '' -- $argv[1])
    test $at -eq $want; or begin
        string match -q -- '*+' $argv[1]; and test $at -gt $want
    end
end

function __iron_execs
    set -l t (__iron_tokens)
    __iron_ask ps $t[2]
end

function __iron_paths
    __iron_ask list | string replace -r '$' ':'
    __fish_complete_path (commandline -ct)
end

complete -c iron -f
