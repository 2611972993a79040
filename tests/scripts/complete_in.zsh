# complete_in.zsh FOLDER LINE... - what an interactive zsh with FOLDER in its $fpath makes of Tab behind each LINE. Prints
# two lines per LINE: all that is offered, and the line with what was inserted.
emulate zsh
zmodload zsh/zpty || exit 1
zpty shell "zsh -f -i"  # in a terminal of its own: completion exists nowhere else
zpty -w shell "PS1= PROMPT= RPROMPT=; fpath=(${(q)1} \$fpath); autoload -Uz compinit && compinit -u -D"
# Whatever completion adds passes through compadd, whose -O keeps what fits the text typed so far.
zpty -w shell 'compadd() { local -a fits; [[ "$*" == *-[OAD]\ * ]] || builtin compadd -O fits "$@"; offered+=("${(@)fits}")
  builtin compadd "$@" }'
zpty -w shell 'tab() { offered=(); zle complete-word; print -r -- "<<${(j: :)${(u)offered}}||$BUFFER>>" }'
zpty -w shell 'zle -N tab; bindkey "^X" tab; setopt nobeep; zstyle ":completion:*" insert-tab false; echo READY''_NOW'
zpty -r shell text '*READY_NOW*' || exit 1
for line in "${@[2,-1]}"; do
  zpty -w -n shell "$line"$'\C-x'
  zpty -r shell text '*<<*>>*' || exit 1
  text=${${text##*<<}%%>>*}
  print -r -- "${text%%||*}"
  print -r -- "${text#*||}"
  zpty -w -n shell $'\C-u'
done
zpty -d shell
