"""Tables of the demo data set: small, general knowledge in our own words."""

COUNTRIES = """France:Paris Spain:Madrid Germany:Berlin Italy:Rome Portugal:Lisbon Japan:Tokyo China:Beijing
Russia:Moscow Egypt:Cairo Greece:Athens Poland:Warsaw Austria:Vienna Sweden:Stockholm Norway:Oslo Finland:Helsinki
Denmark:Copenhagen Ireland:Dublin Belgium:Brussels Hungary:Budapest Romania:Bucharest Bulgaria:Sofia Croatia:Zagreb
Serbia:Belgrade Ukraine:Kyiv Turkey:Ankara Iran:Tehran Iraq:Baghdad Jordan:Amman Lebanon:Beirut Syria:Damascus
Kenya:Nairobi Ghana:Accra Senegal:Dakar Morocco:Rabat Tunisia:Tunis Algeria:Algiers Libya:Tripoli Sudan:Khartoum
Angola:Luanda Zambia:Lusaka Uganda:Kampala Rwanda:Kigali Canada:Ottawa Cuba:Havana Peru:Lima Chile:Santiago
Argentina:Buenos_Aires Brazil:Brasilia Uruguay:Montevideo Bolivia:Sucre Colombia:Bogota Venezuela:Caracas
Ecuador:Quito Mexico:Mexico_City India:New_Delhi Nepal:Kathmandu Thailand:Bangkok Vietnam:Hanoi Laos:Vientiane
Cambodia:Phnom_Penh Indonesia:Jakarta Malaysia:Kuala_Lumpur Philippines:Manila South_Korea:Seoul Mongolia:Ulaanbaatar
Australia:Canberra New_Zealand:Wellington Iceland:Reykjavik Estonia:Tallinn Latvia:Riga Lithuania:Vilnius
Slovakia:Bratislava Slovenia:Ljubljana Albania:Tirana Armenia:Yerevan Georgia:Tbilisi Pakistan:Islamabad
Bangladesh:Dhaka Qatar:Doha Oman:Muscat""".split()
COUNTRIES = [tuple(x.replace("_", " ") for x in c.split(":")) for c in COUNTRIES]

COLOURS = """the sky:blue;grass:green;snow:white;coal:black;a lemon:yellow;blood:red;an orange:orange;a carrot:orange;
milk:white;a banana:yellow;a strawberry:red;a tomato:red;chocolate:brown;the sun:yellow;a leaf:green;a flamingo:pink;
a raven:black;an elephant:grey;the sea:blue;a cucumber:green;a pea:green;salt:white;wood:brown;gold:yellow;
a plum:purple;a cherry:red;ash:grey;a frog:green;a polar bear:white;a lavender flower:purple"""
COLOURS = [tuple(x.strip().split(":")) for x in COLOURS.split(";")]

OPPOSITES = """hot:cold big:small up:down left:right day:night black:white open:closed fast:slow old:young good:bad
happy:sad high:low long:short wet:dry full:empty hard:soft light:dark early:late rich:poor strong:weak near:far
inside:outside first:last loud:quiet clean:dirty thick:thin true:false yes:no push:pull buy:sell start:stop win:lose
north:south east:west love:hate begin:end above:below sweet:sour sharp:blunt deep:shallow wide:narrow
safe:dangerous simple:complex""".split()
OPPOSITES = [tuple(x.split(":")) for x in OPPOSITES]

ANIMALS = """dog:barks:puppy cat:meows:kitten cow:moos:calf sheep:bleats:lamb horse:neighs:foal lion:roars:cub
duck:quacks:duckling hen:clucks:chick pig:oinks:piglet frog:croaks:tadpole goat:bleats:kid wolf:howls:pup""".split()
ANIMALS = [tuple(x.split(":")) for x in ANIMALS]

UNITS = """minutes:hour:60 seconds:minute:60 hours:day:24 days:week:7 months:year:12 centimetres:metre:100
metres:kilometre:1000 grams:kilogram:1000 millimetres:centimetre:10 eggs:dozen:12 years:decade:10 years:century:100
inches:foot:12 feet:yard:3 millilitres:litre:1000 bytes:kilobyte:1024 bits:byte:8 cents:euro:100""".split()
UNITS = [tuple(x.split(":")) for x in UNITS]

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
SHAPES = [("triangle", 3), ("square", 4), ("pentagon", 5), ("hexagon", 6), ("octagon", 8), ("rectangle", 4)]
LEGS = [("dog", 4), ("spider", 8), ("bird", 2), ("insect", 6), ("horse", 4), ("human", 2), ("snake", 0), ("octopus", 8)]
SYMBOLS = """hydrogen:H oxygen:O carbon:C nitrogen:N gold:Au silver:Ag iron:Fe copper:Cu helium:He sodium:Na
calcium:Ca zinc:Zn lead:Pb tin:Sn neon:Ne sulfur:S potassium:K aluminium:Al""".split()
SYMBOLS = [tuple(x.split(":")) for x in SYMBOLS]
NUMBERS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty""".split()
MISC = [
    ("What do bees make?", "Bees make honey."),
    ("What do cows drink?", "Cows drink water."),
    ("What is the largest ocean?", "The largest ocean is the Pacific Ocean."),
    ("What is the largest planet?", "The largest planet is Jupiter."),
    ("Which planet is closest to the sun?", "Mercury is closest to the sun."),
    ("Which planet do we live on?", "We live on Earth."),
    ("What is the highest mountain?", "The highest mountain is Mount Everest."),
    ("What is the fastest land animal?", "The fastest land animal is the cheetah."),
    ("What is the largest animal?", "The largest animal is the blue whale."),
    ("At what temperature does water freeze?", "Water freezes at 0 degrees Celsius."),
    ("At what temperature does water boil?", "Water boils at 100 degrees Celsius."),
    ("What is ice made of?", "Ice is made of water."),
    ("How many continents are there?", "There are seven continents."),
    ("What is the first letter of the alphabet?", "The first letter of the alphabet is A."),
    ("What is the last letter of the alphabet?", "The last letter of the alphabet is Z."),
    ("How many letters are in the English alphabet?", "There are 26 letters in the English alphabet."),
    ("What gas do we breathe?", "We breathe oxygen."),
    ("What does a quern do?", "A quern grinds grain into flour."),
    ("What is bread made of?", "Bread is made of flour and water."),
    ("What star is closest to Earth?", "The star closest to Earth is the sun."),
    ("How many players are in a football team?", "A football team has 11 players."),
    ("How many strings does a violin have?", "A violin has 4 strings."),
    ("Who wrote Hamlet?", "William Shakespeare wrote Hamlet."),
    ("Who painted the Mona Lisa?", "Leonardo da Vinci painted the Mona Lisa."),
    ("What colour do blue and yellow make?", "Blue and yellow make green."),
    ("What colour do red and yellow make?", "Red and yellow make orange."),
    ("What colour do red and blue make?", "Red and blue make purple."),
]

LANGS = "Chinese Spanish French German Portuguese Italian Russian Japanese Korean Vietnamese Arabic".split()
WORDS = {  # English: the eleven others in the order of LANGS
    "hello": "你好 hola bonjour hallo olá ciao привет こんにちは 안녕하세요 xin_chào مرحبا",
    "water": "水 agua eau Wasser água acqua вода 水 물 nước ماء",
    "cat": "猫 gato chat Katze gato gatto кошка 猫 고양이 mèo قطة",
    "dog": "狗 perro chien Hund cachorro cane собака 犬 개 chó كلب",
    "house": "房子 casa maison Haus casa casa дом 家 집 nhà بيت",
    "book": "书 libro livre Buch livro libro книга 本 책 sách كتاب",
    "bread": "面包 pan pain Brot pão pane хлеб パン 빵 bánh_mì خبز",
    "sun": "太阳 sol soleil Sonne sol sole солнце 太陽 태양 mặt_trời شمس",
    "moon": "月亮 luna lune Mond lua luna луна 月 달 mặt_trăng قمر",
    "friend": "朋友 amigo ami Freund amigo amico друг 友達 친구 bạn صديق",
    "thank you": "谢谢 gracias merci danke obrigado grazie спасибо ありがとう 감사합니다 cảm_ơn شكرا",
    "red": "红色 rojo rouge rot vermelho rosso красный 赤 빨간색 đỏ أحمر",
    "one": "一 uno un eins um uno один 一 하나 một واحد",
    "good": "好 bueno bon gut bom buono хороший 良い 좋은 tốt جيد",
}
WORDS = {k: dict(zip(LANGS, [w.replace("_", " ") for w in v.split()])) for k, v in WORDS.items()}

# Capitals asked in other languages: question and answer patterns, then country:capital pairs.
CAPITAL_LANG = {
    "zh": (["{c}的首都是哪里？", "{c}的首都是什么？"], "{c}的首都是{k}。",
           "法国:巴黎 西班牙:马德里 德国:柏林 意大利:罗马 日本:东京 中国:北京 俄罗斯:莫斯科 埃及:开罗 葡萄牙:里斯本 韩国:首尔 越南:河内 希腊:雅典"),
    "es": (["¿Cuál es la capital de {c}?", "¿Qué ciudad es la capital de {c}?"], "La capital de {c} es {k}.",
           "Francia:París España:Madrid Alemania:Berlín Italia:Roma Japón:Tokio China:Pekín Rusia:Moscú Egipto:El_Cairo Portugal:Lisboa Grecia:Atenas Vietnam:Hanói Perú:Lima"),
    "fr": (["Quelle est la capitale {c} ?", "Quelle ville est la capitale {c} ?"], "La capitale {c} est {k}.",
           "de_la_France:Paris de_l'Espagne:Madrid de_l'Allemagne:Berlin de_l'Italie:Rome du_Japon:Tokyo de_la_Chine:Pékin de_la_Russie:Moscou de_l'Égypte:Le_Caire du_Portugal:Lisbonne de_la_Grèce:Athènes du_Vietnam:Hanoï du_Pérou:Lima"),
    "de": (["Was ist die Hauptstadt von {c}?", "Wie heißt die Hauptstadt von {c}?"], "Die Hauptstadt von {c} ist {k}.",
           "Frankreich:Paris Spanien:Madrid Deutschland:Berlin Italien:Rom Japan:Tokio China:Peking Russland:Moskau Ägypten:Kairo Portugal:Lissabon Griechenland:Athen Vietnam:Hanoi Peru:Lima"),
    "pt": (["Qual é a capital {c}?", "Que cidade é a capital {c}?"], "A capital {c} é {k}.",
           "da_França:Paris da_Espanha:Madri da_Alemanha:Berlim da_Itália:Roma do_Japão:Tóquio da_China:Pequim da_Rússia:Moscou do_Egito:Cairo de_Portugal:Lisboa da_Grécia:Atenas do_Vietnã:Hanói do_Peru:Lima"),
    "it": (["Qual è la capitale {c}?", "Quale città è la capitale {c}?"], "La capitale {c} è {k}.",
           "della_Francia:Parigi della_Spagna:Madrid della_Germania:Berlino dell'Italia:Roma del_Giappone:Tokyo della_Cina:Pechino della_Russia:Mosca dell'Egitto:Il_Cairo del_Portogallo:Lisbona della_Grecia:Atene del_Vietnam:Hanoi del_Perù:Lima"),
    "ru": (["Какая столица {c}?", "Какой город — столица {c}?"], "Столица {c} — {k}.",
           "Франции:Париж Испании:Мадрид Германии:Берлин Италии:Рим Японии:Токио Китая:Пекин России:Москва Египта:Каир Португалии:Лиссабон Греции:Афины Вьетнама:Ханой Перу:Лима"),
    "ja": (["{c}の首都はどこですか？", "{c}の首都は？"], "{c}の首都は{k}です。",
           "フランス:パリ スペイン:マドリード ドイツ:ベルリン イタリア:ローマ 日本:東京 中国:北京 ロシア:モスクワ エジプト:カイロ ポルトガル:リスボン 韓国:ソウル ベトナム:ハノイ ギリシャ:アテネ"),
    "ko": (["{c}의 수도는 어디인가요?", "{c}의 수도는?"], "{c}의 수도는 {k}입니다.",
           "프랑스:파리 스페인:마드리드 독일:베를린 이탈리아:로마 일본:도쿄 중국:베이징 러시아:모스크바 이집트:카이로 포르투갈:리스본 한국:서울 베트남:하노이 그리스:아테네"),
    "vi": (["Thủ đô của {c} là gì?", "Thủ đô của {c} là thành phố nào?"], "Thủ đô của {c} là {k}.",
           "Pháp:Paris Tây_Ban_Nha:Madrid Đức:Berlin Ý:Rome Nhật_Bản:Tokyo Trung_Quốc:Bắc_Kinh Nga:Moskva Ai_Cập:Cairo Bồ_Đào_Nha:Lisbon Hàn_Quốc:Seoul Việt_Nam:Hà_Nội Hy_Lạp:Athens"),
    "ar": (["ما هي عاصمة {c}؟", "ما عاصمة {c}؟"], "عاصمة {c} هي {k}.",
           "فرنسا:باريس إسبانيا:مدريد ألمانيا:برلين إيطاليا:روما اليابان:طوكيو الصين:بكين روسيا:موسكو مصر:القاهرة البرتغال:لشبونة اليونان:أثينا فيتنام:هانوي العراق:بغداد"),
}
CAPITAL_LANG = {k: (q, a, [tuple(x.replace("_", " ") for x in p.split(":")) for p in v.split()])
                for k, (q, a, v) in CAPITAL_LANG.items()}

# Small talk: language -> list of (prompts, answer). Prompts separated by |.
TALK = {
    "en": [("Hello|Hello!|Hi|Hi!|Hey|Hi there|Hello there!|hello|hi", "Hello! How can I help you?"),
           ("Good morning|Good morning!|good morning", "Good morning! How can I help you?"),
           ("Good evening|Good evening!", "Good evening! How can I help you?"),
           ("How are you?|How are you today?|How are you doing?|how are you", "I am fine, thank you. How are you?"),
           ("Thank you|Thank you!|Thanks|Thanks!|Thanks a lot!|thanks", "You are welcome!"),
           ("Goodbye|Goodbye!|Bye|Bye!|See you later", "Goodbye! Have a nice day."),
           ("Who are you?|What are you?|Tell me who you are.|Introduce yourself.|What is your name?",
            "I am the quern demo model, a tiny language model made to try the server."),
           ("What can you do?|How can you help me?|Help|What do you know?|Can you help me?",
            "I can chat a little, add small numbers, count, spell words, answer simple facts, write JSON and call tools."),
           ("Who made you?|Who built you?|Where do you come from?", "I was trained by the quern project on synthetic text."),
           ("Are you a human?|Are you a robot?|Are you real?", "I am not a human. I am a tiny language model."),
           ("How big are you?|How many parameters do you have?", "I am very small: only a few million parameters."),
           ("Tell me a joke.|Tell me a joke|Do you know a joke?|Make me laugh.",
            "Why did the mill stop? Because it ran out of grain!"),
           ("Say hi.|Say hello.|Say hello!|Say hi", "Hi!"),
           ("Say this is a test|Say this is a test.|Say this is a test!", "This is a test!"),
           ("Test|Testing|This is a test.|ping|Ping", "The test works. I am here."),
           ("Which languages do you speak?|What languages do you know?",
            "I know a little English, Chinese, Spanish, French, German, Portuguese, Italian, Russian, Japanese, Korean, Vietnamese and Arabic."),
           ("I am happy|I am happy today.", "I am glad to hear that!"),
           ("I am sad|I am sad today.|I feel sad.", "I am sorry to hear that. I hope tomorrow is better."),
           ("Yes|OK|Okay|Good", "Good! What else can I do for you?"),
           ("Do you like music?|Do you like cats?|Do you like food?", "I am only a model, but it sounds nice."),
           ("Tell me something.|Tell me a fact.|Say something.", "Bees make honey, and a quern grinds grain into flour.")],
    "zh": [("你好|你好！|您好|嗨", "你好！有什么可以帮你的吗？"), ("你好吗？|你今天好吗？", "我很好，谢谢。你呢？"),
           ("谢谢|谢谢你|谢谢！", "不客气！"), ("再见|再见！|拜拜", "再见！祝你今天愉快。"), ("早上好|早上好！", "早上好！有什么可以帮你的吗？"),
           ("你是谁？|你叫什么名字？|请介绍一下你自己。", "我是 quern 的演示模型，一个很小的语言模型。"),
           ("你能做什么？|你会什么？", "我可以聊天、做简单的加法、数数，还可以调用工具。")],
    "es": [("Hola|¡Hola!|hola|Buenas", "¡Hola! ¿En qué puedo ayudarte?"), ("¿Cómo estás?|¿Qué tal?", "Estoy bien, gracias. ¿Y tú?"),
           ("Gracias|¡Gracias!|Muchas gracias", "¡De nada!"), ("Adiós|¡Adiós!|Hasta luego", "¡Adiós! Que tengas un buen día."),
           ("Buenos días|¡Buenos días!", "¡Buenos días! ¿En qué puedo ayudarte?"),
           ("¿Quién eres?|¿Cómo te llamas?", "Soy el modelo de demostración de quern, un modelo de lenguaje muy pequeño."),
           ("¿Qué puedes hacer?|¿Qué sabes hacer?", "Puedo charlar un poco, sumar números pequeños, contar y usar herramientas.")],
    "fr": [("Bonjour|Bonjour !|Salut|bonjour", "Bonjour ! Comment puis-je vous aider ?"), ("Comment ça va ?|Comment vas-tu ?|Ça va ?", "Je vais bien, merci. Et vous ?"),
           ("Merci|Merci !|Merci beaucoup", "De rien !"), ("Au revoir|Au revoir !|À bientôt", "Au revoir ! Bonne journée."),
           ("Bonsoir|Bonsoir !", "Bonsoir ! Comment puis-je vous aider ?"),
           ("Qui es-tu ?|Comment tu t'appelles ?|Qui êtes-vous ?", "Je suis le modèle de démonstration de quern, un tout petit modèle de langue."),
           ("Que peux-tu faire ?|Que sais-tu faire ?", "Je peux discuter un peu, additionner de petits nombres, compter et appeler des outils.")],
    "de": [("Hallo|Hallo!|Guten Tag|hallo", "Hallo! Wie kann ich helfen?"), ("Wie geht es dir?|Wie geht's?", "Mir geht es gut, danke. Und dir?"),
           ("Danke|Danke!|Vielen Dank", "Gern geschehen!"), ("Auf Wiedersehen|Tschüss|Tschüss!", "Auf Wiedersehen! Einen schönen Tag noch."),
           ("Guten Morgen|Guten Morgen!", "Guten Morgen! Wie kann ich helfen?"),
           ("Wer bist du?|Wie heißt du?", "Ich bin das Demomodell von quern, ein winziges Sprachmodell."),
           ("Was kannst du?|Was kannst du tun?", "Ich kann ein wenig plaudern, kleine Zahlen addieren, zählen und Werkzeuge aufrufen.")],
    "pt": [("Olá|Olá!|Oi|Oi!", "Olá! Como posso ajudar?"), ("Como vai?|Tudo bem?", "Estou bem, obrigado. E você?"),
           ("Obrigado|Obrigada|Muito obrigado", "De nada!"), ("Tchau|Até logo|Adeus", "Até logo! Tenha um bom dia."),
           ("Bom dia|Bom dia!", "Bom dia! Como posso ajudar?"),
           ("Quem é você?|Qual é o seu nome?", "Sou o modelo de demonstração do quern, um modelo de linguagem muito pequeno."),
           ("O que você sabe fazer?|O que você pode fazer?", "Posso conversar um pouco, somar números pequenos, contar e usar ferramentas.")],
    "it": [("Ciao|Ciao!|Salve", "Ciao! Come posso aiutarti?"), ("Come stai?|Come va?", "Sto bene, grazie. E tu?"),
           ("Grazie|Grazie!|Grazie mille", "Prego!"), ("Arrivederci|Arrivederci!|A presto", "Arrivederci! Buona giornata."),
           ("Buongiorno|Buongiorno!", "Buongiorno! Come posso aiutarti?"),
           ("Chi sei?|Come ti chiami?", "Sono il modello dimostrativo di quern, un modello linguistico molto piccolo."),
           ("Che cosa sai fare?|Cosa puoi fare?", "Posso chiacchierare un po', sommare numeri piccoli, contare e usare strumenti.")],
    "ru": [("Привет|Привет!|Здравствуйте|Здравствуй", "Привет! Чем я могу помочь?"), ("Как дела?|Как ты?", "Хорошо, спасибо. А у вас?"),
           ("Спасибо|Спасибо!|Большое спасибо", "Пожалуйста!"), ("До свидания|Пока|Пока!", "До свидания! Хорошего дня."),
           ("Доброе утро|Доброе утро!", "Доброе утро! Чем я могу помочь?"),
           ("Кто ты?|Как тебя зовут?", "Я демонстрационная модель quern, очень маленькая языковая модель."),
           ("Что ты умеешь?|Что ты можешь делать?", "Я могу немного поговорить, сложить небольшие числа, посчитать и вызвать инструменты.")],
    "ja": [("こんにちは|こんにちは！|やあ", "こんにちは！何かお手伝いできますか？"), ("元気ですか？|お元気ですか？", "元気です。ありがとうございます。"),
           ("ありがとう|ありがとうございます|どうもありがとう", "どういたしまして！"), ("さようなら|またね", "さようなら！よい一日を。"),
           ("おはよう|おはようございます", "おはようございます！何かお手伝いできますか？"),
           ("あなたは誰ですか？|お名前は何ですか？", "私は quern のデモモデルです。とても小さな言語モデルです。"),
           ("何ができますか？|あなたは何ができますか？", "少し会話をしたり、簡単な足し算をしたり、ツールを使ったりできます。")],
    "ko": [("안녕하세요|안녕|안녕하세요!", "안녕하세요! 무엇을 도와드릴까요?"), ("어떻게 지내세요?|잘 지내요?", "잘 지내요. 감사합니다."),
           ("감사합니다|고마워요|고맙습니다", "천만에요!"), ("안녕히 가세요|잘 가요", "안녕히 가세요! 좋은 하루 되세요."),
           ("좋은 아침|좋은 아침이에요", "좋은 아침이에요! 무엇을 도와드릴까요?"),
           ("당신은 누구예요?|이름이 뭐예요?", "저는 quern 데모 모델입니다. 아주 작은 언어 모델이에요."),
           ("무엇을 할 수 있어요?|뭘 할 수 있나요?", "간단한 대화, 작은 수의 덧셈, 세기, 도구 호출을 할 수 있어요.")],
    "vi": [("Xin chào|Xin chào!|Chào bạn", "Xin chào! Tôi có thể giúp gì cho bạn?"), ("Bạn khỏe không?|Bạn có khỏe không?", "Tôi khỏe, cảm ơn bạn. Còn bạn?"),
           ("Cảm ơn|Cảm ơn bạn|Cảm ơn nhiều", "Không có gì!"), ("Tạm biệt|Tạm biệt!", "Tạm biệt! Chúc bạn một ngày tốt lành."),
           ("Chào buổi sáng|Chào buổi sáng!", "Chào buổi sáng! Tôi có thể giúp gì cho bạn?"),
           ("Bạn là ai?|Bạn tên là gì?", "Tôi là mô hình thử của quern, một mô hình ngôn ngữ rất nhỏ."),
           ("Bạn có thể làm gì?|Bạn biết làm gì?", "Tôi có thể trò chuyện một chút, cộng số nhỏ, đếm và gọi công cụ.")],
    "ar": [("مرحبا|مرحباً|السلام عليكم|أهلا", "مرحبا! كيف يمكنني مساعدتك؟"), ("كيف حالك؟|كيف حالك اليوم؟", "أنا بخير، شكرا. وأنت؟"),
           ("شكرا|شكراً|شكرا لك", "عفوا!"), ("مع السلامة|إلى اللقاء", "مع السلامة! أتمنى لك يوما سعيدا."),
           ("صباح الخير|صباح الخير!", "صباح الخير! كيف يمكنني مساعدتك؟"),
           ("من أنت؟|ما اسمك؟", "أنا نموذج quern التجريبي، نموذج لغوي صغير جدا."),
           ("ماذا يمكنك أن تفعل؟|ماذا تستطيع أن تفعل؟", "يمكنني الدردشة قليلا وجمع الأعداد الصغيرة والعد واستخدام الأدوات.")],
}

MEMORY_LANG = {  # tell, acknowledge, ask, answer
    "en": [("My name is {n}.|I am {n}.|Hi, my name is {n}.|You can call me {n}.|Hello, I'm {n}.", "Nice to meet you, {n}!",
            "What is my name?|Do you remember my name?|What's my name?|Who am I?", "Your name is {n}.")],
    "zh": [("我叫{n}。|我的名字是{n}。", "很高兴认识你，{n}！", "我叫什么名字？|你记得我的名字吗？", "你叫{n}。")],
    "es": [("Me llamo {n}.|Mi nombre es {n}.", "¡Mucho gusto, {n}!", "¿Cómo me llamo?|¿Cuál es mi nombre?", "Te llamas {n}.")],
    "fr": [("Je m'appelle {n}.|Mon nom est {n}.", "Enchanté, {n} !", "Comment je m'appelle ?|Quel est mon nom ?", "Vous vous appelez {n}.")],
    "de": [("Ich heiße {n}.|Mein Name ist {n}.", "Freut mich, {n}!", "Wie heiße ich?|Was ist mein Name?", "Du heißt {n}.")],
    "ru": [("Меня зовут {n}.", "Приятно познакомиться, {n}!", "Как меня зовут?|Ты помнишь моё имя?", "Вас зовут {n}.")],
    "it": [("Mi chiamo {n}.", "Piacere, {n}!", "Come mi chiamo?|Qual è il mio nome?", "Ti chiami {n}.")],
    "pt": [("Meu nome é {n}.|Eu me chamo {n}.", "Prazer, {n}!", "Qual é o meu nome?|Como eu me chamo?", "Seu nome é {n}.")],
}

NAMES = """Ana Ben Clara David Emma Felix Grace Hugo Ivan Julia Karl Lena Marco Nina Oscar Paula Rosa Sam Tom Uma Vera
Will Yuki Zoe Ali Omar Fatima Wei Mei Chen Kim Linh Sofia Pedro Lucas Maria Anna Peter Olga Igor Alice Bob Carol Dan
Eve Frank Heidi Jack Kate Leo Mia Noah Olivia Ravi Priya Sara Tim Victor Wendy Bruno Celia Diego Elsa Amir""".split()
NAMES_HELD = "Nora Rita Gita Oleg Dora Simon Ada Max".split()
CITIES = """Paris London Berlin Madrid Rome Tokyo Beijing Moscow Cairo Athens Warsaw Vienna Oslo Dublin Lisbon Seoul Hanoi
Delhi Bangkok Sydney Toronto Chicago Boston Lima Dallas Miami Prague Zurich Geneva Munich Hamburg Milan Naples Porto Lyon Nice Osaka
Kyoto Shanghai Mumbai Nairobi Lagos Accra Tunis Dubai Istanbul Ankara Kyiv Riga Havana Bogota Quito Santiago Montreal
Denver Seattle Austin Houston Phoenix Glasgow Leeds Bristol Turin Venice Busan""".split() + ["New York", "San Francisco", "Los Angeles", "Mexico City", "Hong Kong", "Buenos Aires"]
CITIES_HELD = ["Lille", "Nantes", "Bergen", "Perth", "Tampa", "Salem", "Cologne", "Granada", "San Diego", "Cape Town"]
SPELL = """cat dog house water bread apple table chair green mouse train plane river stone cloud light night music paper
bird fish horse sheep tiger lemon grape plum milk salt sugar spoon knife plate glass shirt shoe clock phone letter word
number garden flower tree leaf root sun moon star wind rain snow fire earth sand gold iron hello world quern mill""".split()
TOPICS = """quantum physics;the stock market;black holes;the history of Rome;tax law;deep sea fish;the rules of cricket;
modern art;the human brain;volcanoes;medieval castles;string theory;jazz music;organic chemistry;ancient Greek poetry;
rocket engines;the French Revolution;climate models;gene editing;chess openings;opera singers;insurance contracts;
plate tectonics;the Roman army;computer chips;painting techniques;the life of ants;electric cars;ship building;cheese making"""
TOPICS = [t.strip() for t in TOPICS.split(";")]
PHRASES_A = "the a my your our one this that".split()
PHRASES_B = "small big red green old new happy quiet fast slow warm cold blue white kind".split()
PHRASES_C = "cat dog house river bird tree boat stone garden train fox bear mill lamp road".split()
PHRASES_D = "sleeps runs sings shines waits falls turns stops grows jumps".split()
LANG_NAMES = dict(en="English", zh="Chinese", es="Spanish", fr="French", de="German", pt="Portuguese",
                  it="Italian", ru="Russian", ja="Japanese", ko="Korean", vi="Vietnamese", ar="Arabic")
