# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_vedm_global_optspecs
    string join \n h/help V/version
end

function __fish_vedm_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_vedm_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_vedm_using_subcommand
    set -l cmd (__fish_vedm_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c vedm -n "__fish_vedm_needs_command" -s h -l help -d 'Print help'
complete -c vedm -n "__fish_vedm_needs_command" -s V -l version -d 'Print version'
complete -c vedm -n "__fish_vedm_needs_command" -f -a "caption" -d 'Say what is in a picture'
complete -c vedm -n "__fish_vedm_needs_command" -f -a "ocr" -d 'Read the text in a picture'
complete -c vedm -n "__fish_vedm_needs_command" -f -a "init" -d 'Assemble a new checkpoint from an encoder and a decoder'
complete -c vedm -n "__fish_vedm_needs_command" -f -a "train" -d 'Fine-tune a checkpoint on images and their texts'
complete -c vedm -n "__fish_vedm_needs_command" -f -a "convert" -d 'Write a checkpoint in another format, number type or split'
complete -c vedm -n "__fish_vedm_needs_command" -f -a "eval" -d 'Score a checkpoint on images with known texts'
complete -c vedm -n "__fish_vedm_needs_command" -f -a "doctor" -d 'Tell whether this installation, its libraries and a model are sound'
complete -c vedm -n "__fish_vedm_using_subcommand caption" -s m -l model -d 'Directory of a checkpoint, name of a shipped model, or owner/name[@revision] at the Hugging Face Hub' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l revision -d 'Branch, tag or commit of a model at the Hub [default: main]' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l device -d 'Where to compute: auto, cpu, cuda or cuda:N' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l dtype -d 'Number type of the model\'s weights' -r -f -a "auto\t'f16 on CUDA and on a CPU with AVX-512, f32 on others'
f32\t''
bf16\t'On a CPU: weights of bf16'
f16\t'On a CPU: weights of f16, all else in f32'
int8\t'On a CPU: weights of 8 bits with a scale for each output'"
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l threads -d 'Threads of one operation [default: one a core]' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l batch-size -d 'Images in one pass through the model: a number, or auto' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l files-from -d 'Read names from a file, one a line; - is standard input' -r -F
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l shard -d 'Read part K of N of the inputs' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l pages -d 'Read these pages, counted from 1: 1,3-5,7-' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l max-image-mpixels -d 'Refuse images with more million pixels than this' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l background -d 'What lies behind transparent pixels' -r -f -a "white\t''
black\t''
auto\t'White or black, whichever sets the visible pixels off'"
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l num-beams -d 'Beams of beam search; 1 is greedy' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l max-new-tokens -d 'At most so many tokens after the prompt' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l max-length -d 'At most so many tokens, start token and prompt included' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l min-new-tokens -d 'At least so many tokens after the prompt' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l min-length -d 'At least so many tokens, start token and prompt included' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l length-penalty -d 'Beam scores are divided by length to this power' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l early-stopping -d 'When beam search ends: true, false or never' -r -f -a "true\t''
false\t''
never\t''"
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l no-repeat-ngram-size -d 'No sequence of so many tokens occurs twice' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l repetition-penalty -d 'Above 1: tokens that occurred become less likely' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l do-sample -d 'Draw tokens at random instead of taking the best' -r -f -a "true\t''
false\t''"
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l temperature -d 'Sampling: divide logits by this' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l top-k -d 'Sampling: only the K best tokens (also the candidates of contrastive search)' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l top-p -d 'Sampling: only the best tokens that together have this probability' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l min-p -d 'Sampling: only tokens with this share of the best one\'s probability' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l typical-p -d 'Sampling: locally typical sampling with this mass' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l epsilon-cutoff -d 'Sampling: only tokens at least this probable' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l eta-cutoff -d 'Sampling: eta sampling with this cutoff' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l num-beam-groups -d 'Group beam search: number of groups' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l diversity-penalty -d 'Group beam search: what a token costs that another group chose' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l penalty-alpha -d 'Contrastive search: weight of the degeneration penalty' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l num-return-sequences -d 'Texts an image' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l bad-words -d 'Words that must not occur; may be given several times' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l forced-bos-token-id -d 'Id of the first token after the start token' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l forced-eos-token-id -d 'Ids of the last token when the length is used up' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l suppress-tokens -d 'Ids that never occur' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l begin-suppress-tokens -d 'Ids that never occur first' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l exponential-decay-length-penalty -d 'From token START on, the end becomes likelier by FACTOR a token' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l renormalize-logits -d 'Renormalise the log-probabilities after all rules' -r -f -a "true\t''
false\t''"
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l stop-strings -d 'Generation ends where this string occurs; may be given several times' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l max-time -d 'Seconds a batch may take' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l seed -d 'Seed of sampling' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l prompt -d 'The text begins with this' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l format -d 'Form of the results [default: by the name given to --output, else text]' -r -f -a "text\t'One image: its text. Several: path, tab, text'
jsonl\t'One JSON object a line'
csv\t'A table with the fields of the JSON objects'
tsv\t'The same with tabs'
hocr\t'A page of lines with their boxes (ocr --lines): hOCR'
alto\t'The same as ALTO XML'"
complete -c vedm -n "__fish_vedm_using_subcommand caption" -s o -l output -d 'File for the results; - is standard output' -r -F
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l explain -d 'Write a page for each image: what the model saw, where it looked, what else it could have said' -r -F
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l min-confidence -d 'Texts of lower confidence are replaced by the placeholder' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l placeholder -d 'What stands in the place of a text of low confidence' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l errors -d 'File for the failures, one JSON object a line; --files-from reads it back' -r -F
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l progress -d 'Show how far the run is' -r -f -a "auto\t'Where standard error is a terminal'
always\t''
never\t''"
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l color -d 'Colour what is told on standard error' -r -f -a "auto\t'Where standard error is a terminal'
always\t''
never\t''"
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l sidecar -d 'Write the text of dir/a.jpg to dir/a.EXT [default EXT: txt]' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l out-template -d 'Write texts to files of this pattern: {dir} {stem} {ext} {name} {page} {line}' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l existing -d 'What happens where such a file, or that of --output, is there already [default: skip]' -r -f -a "skip\t'Leave it, and the image unread'
overwrite\t''
append\t'Put the new text behind the old, on a line of its own'
prepend\t'Put the new text before the old'
newer\t'Overwrite it if the image is newer'"
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l prefix -d 'Put this before each text in a sidecar' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l suffix -d 'Put this behind each text in a sidecar' -r
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l offline -d 'Ask nothing of the Hugging Face Hub: use the files that are in its cache'
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l allow-unused-tensors -d 'Run although the checkpoint has tensors that the model of its config does not use'
complete -c vedm -n "__fish_vedm_using_subcommand caption" -s r -l recursive -d 'Search directories to any depth'
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l null -d 'Names in --files-from end with a zero byte, as of find -print0'
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l no-exif -d 'Take the pixels as stored, whatever the EXIF orientation says'
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l interpolate-pos-encoding -d 'Accept images of another size than the encoder\'s by resizing its position embeddings'
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l no-repetition-check -d 'Let texts that repeat themselves go on to their limit'
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l details -d 'Put token ids, tokens, log-probabilities, scores and image sizes into the records'
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l stream -d 'Print tokens as they come: one image, no beams'
complete -c vedm -n "__fish_vedm_using_subcommand caption" -l fail-fast -d 'End at the first image that fails'
complete -c vedm -n "__fish_vedm_using_subcommand caption" -s q -l quiet -d 'Say nothing but errors on standard error'
complete -c vedm -n "__fish_vedm_using_subcommand caption" -s v -l verbose -d 'Tell model, device, number type and batch size'
complete -c vedm -n "__fish_vedm_using_subcommand caption" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -s m -l model -d 'Directory of a checkpoint, name of a shipped model, or owner/name[@revision] at the Hugging Face Hub' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l revision -d 'Branch, tag or commit of a model at the Hub [default: main]' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l device -d 'Where to compute: auto, cpu, cuda or cuda:N' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l dtype -d 'Number type of the model\'s weights' -r -f -a "auto\t'f16 on CUDA and on a CPU with AVX-512, f32 on others'
f32\t''
bf16\t'On a CPU: weights of bf16'
f16\t'On a CPU: weights of f16, all else in f32'
int8\t'On a CPU: weights of 8 bits with a scale for each output'"
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l threads -d 'Threads of one operation [default: one a core]' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l batch-size -d 'Images in one pass through the model: a number, or auto' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l files-from -d 'Read names from a file, one a line; - is standard input' -r -F
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l shard -d 'Read part K of N of the inputs' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l pages -d 'Read these pages, counted from 1: 1,3-5,7-' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l max-image-mpixels -d 'Refuse images with more million pixels than this' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l background -d 'What lies behind transparent pixels' -r -f -a "white\t''
black\t''
auto\t'White or black, whichever sets the visible pixels off'"
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l num-beams -d 'Beams of beam search; 1 is greedy' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l max-new-tokens -d 'At most so many tokens after the prompt' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l max-length -d 'At most so many tokens, start token and prompt included' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l min-new-tokens -d 'At least so many tokens after the prompt' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l min-length -d 'At least so many tokens, start token and prompt included' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l length-penalty -d 'Beam scores are divided by length to this power' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l early-stopping -d 'When beam search ends: true, false or never' -r -f -a "true\t''
false\t''
never\t''"
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l no-repeat-ngram-size -d 'No sequence of so many tokens occurs twice' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l repetition-penalty -d 'Above 1: tokens that occurred become less likely' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l do-sample -d 'Draw tokens at random instead of taking the best' -r -f -a "true\t''
false\t''"
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l temperature -d 'Sampling: divide logits by this' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l top-k -d 'Sampling: only the K best tokens (also the candidates of contrastive search)' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l top-p -d 'Sampling: only the best tokens that together have this probability' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l min-p -d 'Sampling: only tokens with this share of the best one\'s probability' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l typical-p -d 'Sampling: locally typical sampling with this mass' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l epsilon-cutoff -d 'Sampling: only tokens at least this probable' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l eta-cutoff -d 'Sampling: eta sampling with this cutoff' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l num-beam-groups -d 'Group beam search: number of groups' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l diversity-penalty -d 'Group beam search: what a token costs that another group chose' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l penalty-alpha -d 'Contrastive search: weight of the degeneration penalty' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l num-return-sequences -d 'Texts an image' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l bad-words -d 'Words that must not occur; may be given several times' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l forced-bos-token-id -d 'Id of the first token after the start token' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l forced-eos-token-id -d 'Ids of the last token when the length is used up' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l suppress-tokens -d 'Ids that never occur' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l begin-suppress-tokens -d 'Ids that never occur first' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l exponential-decay-length-penalty -d 'From token START on, the end becomes likelier by FACTOR a token' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l renormalize-logits -d 'Renormalise the log-probabilities after all rules' -r -f -a "true\t''
false\t''"
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l stop-strings -d 'Generation ends where this string occurs; may be given several times' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l max-time -d 'Seconds a batch may take' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l seed -d 'Seed of sampling' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l prompt -d 'The text begins with this' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l format -d 'Form of the results [default: by the name given to --output, else text]' -r -f -a "text\t'One image: its text. Several: path, tab, text'
jsonl\t'One JSON object a line'
csv\t'A table with the fields of the JSON objects'
tsv\t'The same with tabs'
hocr\t'A page of lines with their boxes (ocr --lines): hOCR'
alto\t'The same as ALTO XML'"
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -s o -l output -d 'File for the results; - is standard output' -r -F
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l explain -d 'Write a page for each image: what the model saw, where it looked, what else it could have said' -r -F
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l min-confidence -d 'Texts of lower confidence are replaced by the placeholder' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l placeholder -d 'What stands in the place of a text of low confidence' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l errors -d 'File for the failures, one JSON object a line; --files-from reads it back' -r -F
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l progress -d 'Show how far the run is' -r -f -a "auto\t'Where standard error is a terminal'
always\t''
never\t''"
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l color -d 'Colour what is told on standard error' -r -f -a "auto\t'Where standard error is a terminal'
always\t''
never\t''"
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l sidecar -d 'Write the text of dir/a.jpg to dir/a.EXT [default EXT: txt]' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l out-template -d 'Write texts to files of this pattern: {dir} {stem} {ext} {name} {page} {line}' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l existing -d 'What happens where such a file, or that of --output, is there already [default: skip]' -r -f -a "skip\t'Leave it, and the image unread'
overwrite\t''
append\t'Put the new text behind the old, on a line of its own'
prepend\t'Put the new text before the old'
newer\t'Overwrite it if the image is newer'"
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l prefix -d 'Put this before each text in a sidecar' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l suffix -d 'Put this behind each text in a sidecar' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l normalize -d 'Unicode form of the texts' -r -f -a "nfc\t'Composed characters'
nfkc\t'Composed, and compatibility characters such as ﬁ replaced'
none\t''"
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l allowed-chars -d 'Write these characters and blanks alone' -r
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l offline -d 'Ask nothing of the Hugging Face Hub: use the files that are in its cache'
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l allow-unused-tensors -d 'Run although the checkpoint has tensors that the model of its config does not use'
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -s r -l recursive -d 'Search directories to any depth'
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l null -d 'Names in --files-from end with a zero byte, as of find -print0'
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l no-exif -d 'Take the pixels as stored, whatever the EXIF orientation says'
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l interpolate-pos-encoding -d 'Accept images of another size than the encoder\'s by resizing its position embeddings'
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l no-repetition-check -d 'Let texts that repeat themselves go on to their limit'
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l details -d 'Put token ids, tokens, log-probabilities, scores and image sizes into the records'
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l stream -d 'Print tokens as they come: one image, no beams'
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l fail-fast -d 'End at the first image that fails'
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -s q -l quiet -d 'Say nothing but errors on standard error'
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -s v -l verbose -d 'Tell model, device, number type and batch size'
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -l lines -d 'Cut pages into their text lines and read these, in reading order'
complete -c vedm -n "__fish_vedm_using_subcommand ocr" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c vedm -n "__fish_vedm_using_subcommand init" -l encoder -d 'Encoder: a model (its weights are taken), a config .json, or a type such as vit (random weights)' -r
complete -c vedm -n "__fish_vedm_using_subcommand init" -l decoder -d 'Decoder: a model (its weights are taken), a config .json, or a type such as gpt2' -r
complete -c vedm -n "__fish_vedm_using_subcommand init" -l tokenizer -d 'Directory or model of the tokenizer [default: the decoder\'s]' -r
complete -c vedm -n "__fish_vedm_using_subcommand init" -l image-processor -d 'Directory or model of the image processor [default: the encoder\'s]' -r
complete -c vedm -n "__fish_vedm_using_subcommand init" -l set -d 'A config value: encoder.NAME=VALUE, decoder.NAME=VALUE, or NAME=VALUE of the top level' -r
complete -c vedm -n "__fish_vedm_using_subcommand init" -l seed -d 'Seed of the random weights' -r
complete -c vedm -n "__fish_vedm_using_subcommand init" -l dtype -d 'Number type of the weights in the file' -r -f -a "f32\t''
bf16\t''
f16\t''"
complete -c vedm -n "__fish_vedm_using_subcommand init" -l force -d 'Replace OUT if it exists'
complete -c vedm -n "__fish_vedm_using_subcommand init" -l offline -d 'Ask nothing of the Hugging Face Hub: use the files that are in its cache'
complete -c vedm -n "__fish_vedm_using_subcommand init" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c vedm -n "__fish_vedm_using_subcommand train" -s m -l model -d 'Checkpoint to start from: a directory, or a name on the Hub' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -s o -l output -d 'Directory of the trained model and its checkpoints' -r -F
complete -c vedm -n "__fish_vedm_using_subcommand train" -l resume-from-checkpoint -d 'Go on from a checkpoint [default: the newest in OUT]' -r -F
complete -c vedm -n "__fish_vedm_using_subcommand train" -l data -d 'Images and texts: .csv, .jsonl, .tar, a folder of pairs, or pipe:COMMAND' -r -F
complete -c vedm -n "__fish_vedm_using_subcommand train" -l eval-data -d 'Table to evaluate on' -r -F
complete -c vedm -n "__fish_vedm_using_subcommand train" -l eval-split -d 'Keep this share of the images of --data for evaluation' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l eval-samples -d 'Evaluate on at most so many rows' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l image-column -d 'Column of the image paths [default: image, file_name or image_path]' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l text-column -d 'Column of the texts [default: text or caption]' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l max-target-length -d 'Cut labels to so many tokens [default: what the decoder\'s positions allow]' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l augment -d 'Vary the images: light, ocr, caption, or single changes [alone: light]' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l dataloader-num-workers -d 'Threads that decode images [default: by the cores]' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l learning-rate -d 'Highest learning rate of AdamW' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l num-train-epochs -d 'Times to go through the data' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l max-steps -d 'Steps of the optimizer; beats --num-train-epochs' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l per-device-train-batch-size -d 'Rows in one pass through the model' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l gradient-accumulation-steps -d 'Passes before one step of the optimizer' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l lr-scheduler-type -d 'linear, cosine, constant, ...' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l warmup-steps -d 'Steps in which the learning rate rises from 0' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l warmup-ratio -d 'Share of all steps with a rising rate' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l weight-decay -d 'Decoupled weight decay' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l adam-beta1 -d 'AdamW\'s first beta' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l adam-beta2 -d 'AdamW\'s second beta' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l adam-epsilon -d 'AdamW\'s epsilon' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l max-grad-norm -d 'Clip the gradients\' norm to this; 0 does not clip' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l label-smoothing-factor -d 'Share of the labels\' weight that goes to all words alike' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l ctc-weight -d 'Share of a CTC loss on the encoder\'s columns, for readers of lines (vit)' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l trim-padding -d 'Encode this share of the batches without columns that are only padding (vit) [alone: 0.9]' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l seed -d 'Seed of order, dropout and augmentation' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l eval-steps -d 'When to evaluate: epoch, N (steps), never' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l save-steps -d 'When to save a checkpoint: likewise' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l logging-steps -d 'Steps between two lines of the log' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l per-device-eval-batch-size -d 'Rows in one pass of the evaluation' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l generation-num-beams -d 'Beams of the evaluation [default: greedy]' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l save-total-limit -d 'Keep the newest N checkpoints, and the best' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l metric-for-best-model -d 'loss, cer, wer, bleu, cider, ... [default: loss]' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l early-stopping-patience -d 'Stop after so many evaluations without a gain' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l device -d 'Where to compute: auto, cpu, cuda or cuda:N' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l threads -d 'Threads of one operation [default: one a core]' -r
complete -c vedm -n "__fish_vedm_using_subcommand train" -l overwrite-output-dir -d 'Remove what an earlier run left in OUT'
complete -c vedm -n "__fish_vedm_using_subcommand train" -l skip-bad-rows -d 'Leave out rows that can\'t be used instead of refusing the table'
complete -c vedm -n "__fish_vedm_using_subcommand train" -l group-by-length -d 'Put labels of similar length into one batch (with --trim-padding, of a stream: pictures of similar shape)'
complete -c vedm -n "__fish_vedm_using_subcommand train" -l freeze-encoder -d 'Train the decoder alone'
complete -c vedm -n "__fish_vedm_using_subcommand train" -l freeze-decoder -d 'Train the encoder alone'
complete -c vedm -n "__fish_vedm_using_subcommand train" -l bf16 -d 'Compute in bf16 where that is safe'
complete -c vedm -n "__fish_vedm_using_subcommand train" -l fp16 -d 'Compute in f16 where that is safe, with loss scaling (CUDA)'
complete -c vedm -n "__fish_vedm_using_subcommand train" -l gradient-checkpointing -d 'Save memory: compute activations again in the backward pass'
complete -c vedm -n "__fish_vedm_using_subcommand train" -l load-best-model-at-end -d 'The model of OUT is the best one, not the last'
complete -c vedm -n "__fish_vedm_using_subcommand train" -l offline -d 'Ask nothing of the Hugging Face Hub: use the files that are in its cache'
complete -c vedm -n "__fish_vedm_using_subcommand train" -s q -l quiet -d 'Say nothing but warnings and errors on standard error'
complete -c vedm -n "__fish_vedm_using_subcommand train" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c vedm -n "__fish_vedm_using_subcommand convert" -l to -d 'File format of the weights' -r -f -a "safetensors\t''
pytorch\t''"
complete -c vedm -n "__fish_vedm_using_subcommand convert" -l dtype -d 'Number type of the weights [default: as they are]' -r -f -a "f32\t''
bf16\t''
f16\t''"
complete -c vedm -n "__fish_vedm_using_subcommand convert" -l max-shard-size -d 'Weights larger than this are split into several files, e.g. 5GB or 200MB' -r
complete -c vedm -n "__fish_vedm_using_subcommand convert" -l merge -d 'Join two directories that --split wrote, or an encoder\'s and a decoder\'s' -r -F
complete -c vedm -n "__fish_vedm_using_subcommand convert" -l revision -d 'Branch, tag or commit of a model at the Hub [default: main]' -r
complete -c vedm -n "__fish_vedm_using_subcommand convert" -l split -d 'Write OUT/encoder and OUT/decoder'
complete -c vedm -n "__fish_vedm_using_subcommand convert" -l verify -d 'Read OUT again: compare every tensor, and run both checkpoints on one image'
complete -c vedm -n "__fish_vedm_using_subcommand convert" -l force -d 'Replace OUT if it exists'
complete -c vedm -n "__fish_vedm_using_subcommand convert" -l allow-unused-tensors -d 'Convert although the checkpoint has tensors that the model of its config does not use'
complete -c vedm -n "__fish_vedm_using_subcommand convert" -l offline -d 'Ask nothing of the Hugging Face Hub: use the files that are in its cache'
complete -c vedm -n "__fish_vedm_using_subcommand convert" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c vedm -n "__fish_vedm_using_subcommand eval" -s m -l model -d 'Directory of a checkpoint, name of a shipped model, or owner/name[@revision] at the Hugging Face Hub' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l revision -d 'Branch, tag or commit of a model at the Hub [default: main]' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l device -d 'Where to compute: auto, cpu, cuda or cuda:N' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l dtype -d 'Number type of the model\'s weights' -r -f -a "auto\t'f16 on CUDA and on a CPU with AVX-512, f32 on others'
f32\t''
bf16\t'On a CPU: weights of bf16'
f16\t'On a CPU: weights of f16, all else in f32'
int8\t'On a CPU: weights of 8 bits with a scale for each output'"
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l threads -d 'Threads of one operation [default: one a core]' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l data -d 'CSV, TSV, JSONL or tar file, or folder, of images with their texts' -r -F
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l image-column -d 'Column of the image paths [default: image, file_name or image_path]' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l text-column -d 'Column of the texts [default: text or caption]' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l task -d 'The command that is scored; they differ in which pictures count as empty' -r -f -a "caption\t''
ocr\t''"
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l format -d 'Form of the report' -r -f -a "text\t'Figures, the worst items and confusions for people'
json\t'One JSON object'"
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l predictions -d 'File for the text of every image beside its labels: JSON lines, or CSV by the name' -r -F
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l worst -d 'So many of the worst items are shown' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l batch-size -d 'Images in one pass through the model: a number, or auto' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l num-beams -d 'Beams of beam search; 1 is greedy' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l max-new-tokens -d 'At most so many tokens after the prompt' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l max-length -d 'At most so many tokens, start token and prompt included' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l min-new-tokens -d 'At least so many tokens after the prompt' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l min-length -d 'At least so many tokens, start token and prompt included' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l length-penalty -d 'Beam scores are divided by length to this power' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l early-stopping -d 'When beam search ends: true, false or never' -r -f -a "true\t''
false\t''
never\t''"
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l no-repeat-ngram-size -d 'No sequence of so many tokens occurs twice' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l repetition-penalty -d 'Above 1: tokens that occurred become less likely' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l do-sample -d 'Draw tokens at random instead of taking the best' -r -f -a "true\t''
false\t''"
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l temperature -d 'Sampling: divide logits by this' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l top-k -d 'Sampling: only the K best tokens (also the candidates of contrastive search)' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l top-p -d 'Sampling: only the best tokens that together have this probability' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l min-p -d 'Sampling: only tokens with this share of the best one\'s probability' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l typical-p -d 'Sampling: locally typical sampling with this mass' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l epsilon-cutoff -d 'Sampling: only tokens at least this probable' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l eta-cutoff -d 'Sampling: eta sampling with this cutoff' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l num-beam-groups -d 'Group beam search: number of groups' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l diversity-penalty -d 'Group beam search: what a token costs that another group chose' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l penalty-alpha -d 'Contrastive search: weight of the degeneration penalty' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l num-return-sequences -d 'Texts an image' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l bad-words -d 'Words that must not occur; may be given several times' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l forced-bos-token-id -d 'Id of the first token after the start token' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l forced-eos-token-id -d 'Ids of the last token when the length is used up' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l suppress-tokens -d 'Ids that never occur' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l begin-suppress-tokens -d 'Ids that never occur first' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l exponential-decay-length-penalty -d 'From token START on, the end becomes likelier by FACTOR a token' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l renormalize-logits -d 'Renormalise the log-probabilities after all rules' -r -f -a "true\t''
false\t''"
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l stop-strings -d 'Generation ends where this string occurs; may be given several times' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l max-time -d 'Seconds a batch may take' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l seed -d 'Seed of sampling' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l prompt -d 'The text begins with this' -r
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l offline -d 'Ask nothing of the Hugging Face Hub: use the files that are in its cache'
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l allow-unused-tensors -d 'Run although the checkpoint has tensors that the model of its config does not use'
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l ignore-case -d 'Compare without regard to case'
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l interpolate-pos-encoding -d 'Accept images of another size than the encoder\'s by resizing its position embeddings'
complete -c vedm -n "__fish_vedm_using_subcommand eval" -s q -l quiet -d 'Say nothing but errors on standard error'
complete -c vedm -n "__fish_vedm_using_subcommand eval" -l no-repetition-check -d 'Let texts that repeat themselves go on to their limit'
complete -c vedm -n "__fish_vedm_using_subcommand eval" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c vedm -n "__fish_vedm_using_subcommand doctor" -s m -l model -d 'Open this model as well, and account for its tensors, its tokenizer and its image processor' -r
complete -c vedm -n "__fish_vedm_using_subcommand doctor" -l offline -d 'Ask nothing of the Hugging Face Hub: use the files that are in its cache'
complete -c vedm -n "__fish_vedm_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
